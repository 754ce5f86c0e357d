"""Ids of clips and of the videos they were cut from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

CLIP_ID = re.compile(r"[A-Za-z0-9_-]+")
SPLIT = re.compile(r"[a-z][a-z0-9_]*")


def clip_id_of(path: PurePosixPath | Path) -> str:
    """Make a clip id of a relative path without its suffix: its parts joined by '-', other characters replaced."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(path.with_suffix("").parts))


def check_clip_ids(ids: Sequence[str], folder: Path, layout: str) -> None:
    """Raise ValueError for no clips, for one id on two clips, and for ids that no tar member can have."""
    if not ids:
        raise ValueError(f"source={folder}: holds no clips in the layout {layout}; see docs/layouts.md for its files")
    wrong = [clip_id for clip_id in ids if not CLIP_ID.fullmatch(clip_id)]
    if wrong:
        raise ValueError(
            f"source={folder}: clip id {wrong[0]!r} may have letters, digits, '-' and '_' only (tar members share it)"
        )
    twice = [clip_id for clip_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"source={folder}: {len(twice)} clip ids are there more than once, first {twice[0]}; "
            "give each clip one entry in one split"
        )
