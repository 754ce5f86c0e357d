"""JSON lists of clips, as CameraCtrl and VideoX-Fun keep them: one object per clip that names its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def list_files(folder: Path, keys: Sequence[str]) -> list[Path]:
    """Return the folder's JSON files that are lists of objects with these keys, judged by the first object."""
    return [path for path in sorted(folder.glob("*.json")) if _is_list(path, keys)]


def read_list(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Read a list of clips; raises ValueError for an entry that lacks one of the keys."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    for number, entry in enumerate(entries):
        missing = [key for key in keys if not isinstance(entry, dict) or not isinstance(entry.get(key), str)]
        if missing:
            raise ValueError(f"{path} entry {number}: has no {missing[0]!r}; each entry needs {', '.join(keys)}")
    return entries


def texts_of(value: Any) -> tuple[str, ...]:
    """Return a caption, or several, as a tuple; empty ones are left out."""
    texts = value if isinstance(value, list) else [value]
    return tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())


def _is_list(path: Path, keys: Sequence[str]) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and set(keys) <= set(content[0])
