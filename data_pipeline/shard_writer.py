"""Write tar shards: the same samples give the same bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.index import build_index, index_path, write_index
from data_pipeline.manifest import ShardEntry

Sample = tuple[str, int, Mapping[str, bytes]]
"""Key, number of frames, members by extension."""

_MTIME = 0.0  # no clock, user or group in the archive


def write_shard(path: Path, samples: Sequence[Sample]) -> ShardEntry:
    """Write samples as one WebDataset tar, and its index from reading it back; both are on disk on return."""
    # Imported here: it imports torch, which each of many packing processes would then load.
    import webdataset

    owner = {"user": "cami2v", "group": "cami2v", "mode": 0o644, "mtime": _MTIME}
    with path.open("wb") as file, webdataset.TarWriter(file, encoder=False, **owner) as tar:
        for key, _, members in samples:
            tar.write({"__key__": key, **members})
    index = build_index(path)
    if [sample.key for sample in index] != [key for key, _, _ in samples]:
        raise ValueError(f"{path}: reads back {len(index)} of {len(samples)} samples; is the disk full?")
    write_index(path, index)
    with path.open("rb") as written:
        sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        os.fsync(written.fileno())
    with index_path(path).open("rb") as written:
        os.fsync(written.fileno())
    return ShardEntry(
        name=path.name,
        samples=len(samples),
        bytes=path.stat().st_size,
        sha256=sha256,
        shortest_clip_frames=min(frames for _, frames, _ in samples),
    )
