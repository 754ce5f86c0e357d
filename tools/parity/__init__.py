"""Parity with published numbers: `python -m tools.parity DIR`."""
