"""Splits that a layout expresses by the names of its list files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_WORDS = {"train": "train", "training": "train", "test": "test", "val": "validation", "validation": "validation"}


def split_by_file(paths: Sequence[Path]) -> dict[Path, str | None]:
    """Return the split each list file stands for, by a word in its name.

    A single file that names none holds everything, to be dealt out. Raises ValueError where one of several names none
    or two name the same.
    """
    splits: dict[Path, str | None] = {}
    for path in paths:
        words = [_WORDS[word] for word in re.split(r"[^a-z]+", path.stem.lower()) if word in _WORDS]
        splits[path] = words[-1] if words else None
    if len(paths) > 1 and (None in splits.values() or len(set(splits.values())) < len(paths)):
        raise ValueError(
            f"{paths[0].parent}: {', '.join(path.name for path in paths)}: each of several lists must be named for its "
            "own split (train, test, validation); rename them, or move away those that are not to be packed"
        )
    return splits
