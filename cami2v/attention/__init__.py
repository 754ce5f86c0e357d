"""Attention: one function (`core.attend`), described masks, and one file per backend."""
