"""Copies of a shard set with chosen clips damaged, each in its own way; tar sizes and the manifest's counts stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from data_pipeline.index import IndexedSample, index_path, read_index


def copy_set(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


def clips_of(folder: Path, split: str = "train") -> dict[str, tuple[Path, IndexedSample]]:
    """Return shard and index entry of every clip of a split, by clip id."""
    shards = sorted(folder.glob(f"{split}-*.tar"))
    return {sample.key: (shard, sample) for shard in shards for sample in read_index(shard)}


def flip_bit(folder: Path, clip: str) -> None:
    """Damage bytes of the video, so that the index's checksum does not hold."""
    shard, sample = clips_of(folder)[clip]
    _change(shard, sample.members["mp4"].offset + 40, lambda old: bytes([old[0] ^ 255]), 1)


def break_json(folder: Path, clip: str) -> None:
    """Make the json useless, with an index that agrees."""
    _rewrite(folder, clip, "json", lambda old: b"x" * len(old))


def break_video(folder: Path, clip: str) -> None:
    """Make the video useless, with an index that agrees."""
    _rewrite(folder, clip, "mp4", lambda old: b"\0" * len(old))


def lose_cameras(folder: Path, clip: str) -> None:
    """Take the cameras out of the index."""
    _edit_index(folder, clip, lambda members: members.pop("cameras.npz"))


def _rewrite(folder: Path, clip: str, extension: str, change: Callable[[bytes], bytes]) -> None:
    shard, sample = clips_of(folder)[clip]
    member = sample.members[extension]
    new = _change(shard, member.offset, change, member.size)
    checksum = hashlib.sha256(new).hexdigest()
    _edit_index(folder, clip, lambda members: members.update({extension: [member.offset, member.size, checksum]}))


def _change(shard: Path, offset: int, change: Callable[[bytes], bytes], size: int) -> bytes:
    data = bytearray(shard.read_bytes())
    new = change(bytes(data[offset : offset + size]))
    assert len(new) == size
    data[offset : offset + size] = new
    shard.write_bytes(data)
    return new


def _edit_index(folder: Path, clip: str, edit: Callable[[dict[str, list[object]]], object]) -> None:
    path = index_path(clips_of(folder)[clip][0])
    content = json.loads(path.read_text())
    edit(next(row["members"] for row in content["samples"] if row["key"] == clip))
    path.write_text(json.dumps(content))
