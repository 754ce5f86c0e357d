"""What is known of a cut clip beside its frames: `<clip>.cut.json`, written when its video is complete.

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRecord:
    """Where the frames of a clip come from."""

    clip_id: str
    source_id: str
    poses_sha256: str
    source: Mapping[str, Any]
    """file, bytes, sha256, height and width (rotation applied, pixels as stored), frames_per_second,
    rotation_applied_degrees, pixel_aspect (as the file says)."""
    clip: Mapping[str, Any]
    """bytes, height, width, frames, frames_per_second."""
    frame_format: Mapping[str, Any]
    frame_indices: tuple[int, ...]
    """In the source, display order."""
    timestamp_offsets_microseconds: tuple[int, ...]
    """Time of the decoded frame minus the annotated time."""


def record_path(video: Path) -> Path:
    """Return where the record of a cut clip is."""
    return video.with_suffix(".cut.json")


def write_record(record: CutRecord, video: Path) -> None:
    """Write it whole or not at all."""
    write_whole(record_path(video), (json.dumps(asdict(record)) + "\n").encode())


def read_record(video: Path) -> CutRecord | None:
    """Return the record of a cut clip; None where the clip was made by something else.

    Raises ValueError for a file that is no such record.
    """
    path = record_path(video)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: tuple(map(int, values[key])) for key in ("frame_indices", "timestamp_offsets_microseconds")}
        return CutRecord(**(values | lists))
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: not the record of a cut clip ({error}); remove it and run cami2v data clips"
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all. Raises OSError, naming it, where the disk refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
