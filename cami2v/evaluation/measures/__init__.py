"""What a clip is judged by: one file per measure, all behind the contract of base.py."""
