"""Readers of source folders: each turns one layout of posed video into clips that `pack` can inspect and encode."""
