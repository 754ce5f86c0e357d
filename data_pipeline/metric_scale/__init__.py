"""Metres per pose unit of every clip, from metric depth against triangulated points."""
