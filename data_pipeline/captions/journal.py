"""Captions made so far, one line each, written as they come: what a kill leaves is complete but for one line.

<folder>/generated_captions/<task>-of-<tasks>.jsonl   a line per caption with everything it depends on
<folder>/captions-generated.json                      {"<clip>.mp4": ["<caption>"]} of all journals: `pack` reads it

Files are merged by `pack` in the order of their names, later ones win: `-` comes before `.` and `_`, so that captions a
person wrote to captions.json or captions_*.json stand above these.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.array_tasks import Share
from data_pipeline.clips.record import write_whole
from data_pipeline.file_locks import FileLock, try_lock, wait_for_lock

FILE_NAME = "captions-generated.json"
FOLDER = "generated_captions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """One line of a journal."""

    clip: str
    caption: str
    frames: tuple[int, ...]
    """Numbers of the clip's frames that were shown."""
    made_with: Mapping[str, Any]
    """Model, prompt and settings."""


class Journal:
    """The captions of one task; `with` holds it, so that no second run writes to the same.

    Raises ValueError where another run holds it, or a line of it is damaged.
    """

    def __init__(self, folder: Path, share: Share) -> None:
        self.folder = folder
        self.path = folder / FOLDER / f"{share.task}-of-{share.tasks}.jsonl"
        self._lock: FileLock | None = None

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = try_lock(self.path.with_suffix(".lock"))
        if self._lock is None:
            raise ValueError(f"{self.path}: another run is writing it; wait for it, or stop it")
        _drop_torn_line(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._lock is not None:
            self._lock.release()

    def add(self, captions: Sequence[Caption]) -> None:
        """Append lines; they are on the disk when this returns."""
        for each in captions:
            line = {"clip": each.clip, "caption": each.caption, "frames": each.frames, "made_with": each.made_with}
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journals(folder: Path, made_with: Mapping[str, Any]) -> dict[str, Caption]:
    """Return the caption of every clip that any task has: one made as `made_with` says before others, else the latest.

    Raises ValueError for a damaged line.
    """
    kept: dict[str, Caption] = {}
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        for caption in _lines(path):
            before = kept.get(caption.clip)
            if before is None or before.made_with != made_with or caption.made_with == made_with:
                kept[caption.clip] = caption
    return kept


def publish(folder: Path, made_with: Mapping[str, Any]) -> int:
    """Write captions-generated.json from all journals and return how many captions it has; tasks take turns."""
    with wait_for_lock(folder / FOLDER / "publish.lock"):
        captions = read_journals(folder, made_with)
        content = {f"{clip}.mp4": [captions[clip].caption] for clip in sorted(captions)}
        if content:
            write_whole(folder / FILE_NAME, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return len(content)


def _lines(path: Path) -> Iterator[Caption]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # being written, or torn by a kill
            try:
                row = json.loads(line)
                yield Caption(
                    clip=str(row["clip"]),
                    caption=str(row["caption"]),
                    frames=tuple(map(int, row["frames"])),
                    made_with=dict(row["made_with"]),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} line {number}: damaged ({error}); remove the line, its clip is redone"
                ) from error


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
