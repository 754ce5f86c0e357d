"""Where every member of a shard lies, so that one sample can be read without the ones before it.

`<shard>.index.json` sits beside `<shard>.tar`. A tar without one still reads: the index is then made in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.unusable import Unusable, UnusableClip

logger = logging.getLogger(__name__)

REQUIRED_MEMBERS = ("mp4", "cameras.npz", "json")
_TAR_END_BYTES = 1024 + 10240  # two empty blocks, then padding to a whole record


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Byte range of one file in the tar, and the checksum of its content."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedSample:
    """The members of one sample, by extension."""

    key: str
    members: Mapping[str, Member]


def index_path(shard: Path) -> Path:
    """Return the place of a shard's index file."""
    return shard.with_suffix(".index.json")


def build_index(shard: Path) -> tuple[IndexedSample, ...]:
    """Read a whole tar and note where its members are.

    Raises ValueError for a damaged tar: also for the kind that tarfile takes for the end of the archive.
    """
    samples: dict[str, dict[str, Member]] = {}
    end = 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // 512) * 512
                if not info.isfile():
                    continue
                key, _, extension = info.name.partition(".")
                file = tar.extractfile(info)
                assert file is not None, "a regular member has content"
                data = file.read()
                if len(data) != info.size:
                    raise ValueError(f"{shard}: cut off inside {info.name}; copy or pack it again")
                member = Member(offset=info.offset_data, size=info.size, sha256=hashlib.sha256(data).hexdigest())
                samples.setdefault(key, {})[extension] = member
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{shard}: not a readable tar ({error}); copy or pack it again") from error
    with shard.open("rb") as file:
        file.seek(end)
        tail = file.read(_TAR_END_BYTES + 1)
    # tarfile takes a damaged header for the end of the archive and says nothing.
    if len(tail) > _TAR_END_BYTES or any(tail):
        raise ValueError(f"{shard}: damaged after byte {end}, {len(samples)} samples read; copy or pack it again")
    return tuple(IndexedSample(key=key, members=members) for key, members in samples.items())


def write_index(shard: Path, samples: tuple[IndexedSample, ...]) -> None:
    """Write the index file of a shard."""
    content = {
        "shard": shard.name,
        "bytes": shard.stat().st_size,
        "samples": [
            {"key": s.key, "members": {e: [m.offset, m.size, m.sha256] for e, m in s.members.items()}} for s in samples
        ],
    }
    index_path(shard).write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def read_index(shard: Path) -> tuple[IndexedSample, ...]:
    """Read a shard's index file, or index the tar where there is none.

    Raises ValueError where the index does not fit the tar.
    """
    path = index_path(shard)
    if not path.is_file():
        logger.warning("%s: no index file, reading the whole tar once to make one", shard)
        return build_index(shard)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size, rows = content["bytes"], content["samples"]
        samples = tuple(
            IndexedSample(
                key=row["key"],
                members={
                    extension: Member(offset=offset, size=size, sha256=sha256)
                    for extension, (offset, size, sha256) in row["members"].items()
                },
            )
            for row in rows
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a shard index ({error}); delete it to have it made again") from error
    if size != (actual := shard.stat().st_size):
        raise ValueError(f"{path}: made for a tar of {size} bytes, {shard.name} has {actual}; delete it or copy again")
    return samples


def read_sample(shard: Path, sample: IndexedSample) -> dict[str, bytes]:
    """Read the members of one sample and check them.

    Raises UnusableClip naming shard and key for a missing member, a short read or a wrong checksum.
    """
    return read_members(shard, sample, list(dict.fromkeys([*REQUIRED_MEMBERS, *sample.members])))


def read_members(shard: Path, sample: IndexedSample, extensions: Sequence[str]) -> dict[str, bytes]:
    """Read some members of one sample and check them. Raises as `read_sample` does."""
    missing = [extension for extension in extensions if extension not in sample.members]
    if missing:
        raise UnusableClip(
            Unusable.MEMBER_MISSING,
            f"{shard} sample {sample.key}: has no .{missing[0]} (has: {', '.join(sample.members)})",
        )
    members = {}
    descriptor = os.open(shard, os.O_RDONLY)
    try:
        for extension in extensions:
            member = sample.members[extension]
            data = os.pread(descriptor, member.size, member.offset)
            if len(data) != member.size or hashlib.sha256(data).hexdigest() != member.sha256:
                raise UnusableClip(
                    Unusable.MEMBER_DAMAGED,
                    f"{shard} sample {sample.key}: .{extension} is damaged ({len(data)} of {member.size} bytes, "
                    "checksum differs); copy the shard again or pack it again",
                )
            members[extension] = data
    finally:
        os.close(descriptor)
    return members
