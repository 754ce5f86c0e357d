"""Write tar shards: the same samples give the same bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_pipeline.index import build_index, index_path, write_index
from data_pipeline.manifest import ShardEntry

Sample = tuple[str, int, Mapping[str, bytes]]
"""Key, number of frames, members by extension."""

_MTIME = 0.0  # no clock, user or group in the archive


def write_shard(path: Path, samples: Iterable[Sample]) -> ShardEntry:
    """Write samples, at least one, as a WebDataset tar, and its index from reading it back; both are on disk on return.

    Each sample is written before the next one is asked for.
    """
    # Imported here: it imports torch, which each of many packing processes would then load.
    import webdataset

    owner = {"user": "cami2v", "group": "cami2v", "mode": 0o644, "mtime": _MTIME}
    written: dict[str, int] = {}
    with path.open("wb") as file, webdataset.TarWriter(file, encoder=False, **owner) as tar:
        for key, frames, members in samples:
            tar.write({"__key__": key, **members})
            written[key] = frames
    index = build_index(path)
    if [sample.key for sample in index] != list(written):
        raise ValueError(f"{path}: reads back {len(index)} of {len(written)} samples; is the disk full?")
    write_index(path, index)
    with path.open("rb") as tar_file:
        sha256 = hashlib.file_digest(tar_file, "sha256").hexdigest()
        os.fsync(tar_file.fileno())
    with index_path(path).open("rb") as index_file:
        os.fsync(index_file.fileno())
    return ShardEntry(
        name=path.name,
        samples=len(written),
        bytes=path.stat().st_size,
        sha256=sha256,
        shortest_clip_frames=min(written.values()),
    )
