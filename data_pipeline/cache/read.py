"""Open a cache for a shard set: refuse a stale one, then read single frames and captions of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from torch import Tensor

from data_pipeline.cache.manifest import (
    BLANK_IMAGE,
    EMPTY_CAPTION,
    CacheManifest,
    EncodedShard,
    clip_content,
    read_cache_manifest,
)
from data_pipeline.cache.rows import HEADER_BYTES, checksums
from data_pipeline.index import IndexedSample, read_index, read_members
from data_pipeline.manifest import ShardEntry, Split
from data_pipeline.shard_store import ShardStore
from data_pipeline.unusable import Unusable, UnusableClip

Place = tuple[int, str]
"""Shard of the cache, and key of the sample in it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Where an array of a sample begins, how many rows it has, and which checksum is its first row's."""

    offset: int
    rows: int
    first_checksum: int


@dataclass(frozen=True, slots=True)
class _EncodedClip:
    parts: Mapping[str, _Part]
    checksums_offset: int
    checksums: int


class ClipCache:
    """The encoded clips of one split of a shard set.

    Raises ValueError, in one line that says what to run, for a cache that was made at another resolution or does not
    have the split's clips. `check_encoders` compares the encoders.
    """

    def __init__(
        self, folder: Path, *, store: ShardStore, split_name: str, split: Split, resolution: tuple[int, int]
    ) -> None:
        self.folder = folder
        self.manifest: CacheManifest = read_cache_manifest(folder)
        self.encoding = self.manifest.encoding
        self._set = store.name
        if self.encoding.resolution != resolution:
            height, width = self.encoding.resolution
            raise ValueError(
                f"data.cache={folder}: encoded at {height}x{width}, this run has data.resolution={list(resolution)}; "
                f"{self._encode_again()}"
            )
        self._shards: list[EncodedShard] = [each for shards in self.manifest.splits.values() for each in shards]
        self._check_files()
        self._row_bytes = {name: prod(shape) * self.dtype.itemsize for name, shape in self.manifest.rows.items()}
        self._clips: dict[int, dict[str, _EncodedClip]] = {}
        self._same: dict[int, int] = {}
        self._moved: dict[tuple[int, str], Place | None] = {}
        self._find_clips(store, split_name, split)
        self.empty_caption = self._blank(EMPTY_CAPTION, "text")
        self.blank_image = self._blank(BLANK_IMAGE, "image") if self.image_tokens else None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Numpy's type of the stored numbers."""
        return self.encoding.dtype.stored

    @property
    def image_tokens(self) -> bool:
        """Whether the cache holds image tokens."""
        return self.encoding.image_tokens

    def check_encoders(self, encoders: Mapping[str, str]) -> None:
        """Raise ValueError where a frozen tower of this run (identity by name) is not the one that encoded."""
        for name, identity in self.encoding.encoders.items():
            if encoders[name] != identity:
                raise ValueError(
                    f"data.cache={self.folder}: encoded by another {name} encoder ({identity[:12]}..., this run's is "
                    f"{encoders[name][:12]}...: other weights or settings); {self._encode_again()}"
                )

    def read(
        self, shard: int, key: str, wanted: Mapping[str, Sequence[int]], *, frames: int, where: str
    ) -> dict[str, Tensor]:
        """Return the wanted rows of a clip of the set's shard, by array; `frames` is what the clip has in the set.

        Raises UnusableClip, naming `where`, for a clip that could not be encoded, and for damaged rows.
        """
        number, clip = self._clip(shard, key, where)
        if clip.parts["moments"].rows != frames:
            raise UnusableClip(
                Unusable.NOT_A_CLIP,
                f"{where}: {frames} frames, but {clip.parts['moments'].rows} encoded in {self._path(number)}",
            )
        descriptor = os.open(self._path(number), os.O_RDONLY)
        try:
            stored = os.pread(descriptor, 8 * clip.checksums, clip.checksums_offset).ljust(8 * clip.checksums)
            found = {name: self._rows(descriptor, clip.parts[name], name, rows) for name, rows in wanted.items()}
        finally:
            os.close(descriptor)
        expected = np.frombuffer(stored, np.uint64)
        for name, rows in wanted.items():
            first = clip.parts[name].first_checksum
            if not np.array_equal(checksums(found[name]), expected[[first + row for row in rows]]):
                raise UnusableClip(
                    Unusable.MEMBER_DAMAGED,
                    f"{self._path(number)} sample {key}: .{name}.npy is damaged (checksum differs); copy the cache "
                    "again or delete this file and encode again",
                )
        return {name: self.encoding.dtype.tensor(array) for name, array in found.items()}

    def _rows(self, descriptor: int, part: _Part, name: str, rows: Sequence[int]) -> np.ndarray:
        """Read rows by number, with one call where they follow each other."""
        size = self._row_bytes[name]
        array = np.zeros((len(rows), *self.manifest.rows[name]), self.dtype)
        buffer = array.data.cast("B")
        if rows[-1] - rows[0] == len(rows) - 1:
            os.preadv(descriptor, [buffer], part.offset + rows[0] * size)
            return array
        for at, row in enumerate(rows):
            os.preadv(descriptor, [buffer[at * size : (at + 1) * size]], part.offset + row * size)
        return array

    def _clip(self, shard: int, key: str, where: str) -> tuple[int, _EncodedClip]:
        number = self._same.get(shard)
        if number is not None:
            place: Place | None = (number, key) if key in self._shards[number].clips else None
        else:
            place = self._moved[shard, key]
        if place is None:
            raise UnusableClip(Unusable.NOT_DECODABLE, f"{where}: could not be encoded for {self.folder}")
        number, key = place
        if number not in self._clips:
            self._clips[number] = {sample.key: self._parts(number, sample) for sample in read_index(self._path(number))}
        return number, self._clips[number][key]

    def _parts(self, number: int, sample: IndexedSample) -> _EncodedClip:
        parts: dict[str, _Part] = {}
        before = 0
        for name, size in self._row_bytes.items():
            member = sample.members[f"{name}.npy"]
            rows, rest = divmod(member.size - HEADER_BYTES, size)
            if rest:
                raise ValueError(
                    f"{self._path(number)} sample {sample.key}: .{name}.npy has {member.size} bytes, not a whole "
                    "number of rows; the cache is damaged, encode again"
                )
            parts[name] = _Part(member.offset + HEADER_BYTES, rows, before)
            before += rows
        return _EncodedClip(parts, sample.members["sums.npy"].offset + HEADER_BYTES, before)

    def _find_clips(self, store: ShardStore, split_name: str, split: Split) -> None:
        """Find the set's shards among those that were encoded, and where a shard is another one, its clips."""
        encoded = {shard.source_sha256: number for number, shard in enumerate(self._shards)}
        others = []
        for number, entry in enumerate(split.shards):
            if entry.sha256 in encoded:
                self._same[number] = encoded[entry.sha256]
            else:
                others.append((number, entry))
        if not others:
            return
        places = {content: (n, key) for n, each in enumerate(self._shards) for key, content in each.clips.items()}
        unusable = {key for each in self._shards for key in each.unusable}
        missing = []
        for number, entry in others:
            for key, content in _contents(store, entry):
                place = None if content is None else places.get(content)
                self._moved[number, key] = place
                if place is None and content is not None and key not in unusable:
                    missing.append(f"{entry.name} sample {key}")
        if missing:
            raise ValueError(
                f"data.cache={self.folder}: {len(missing)} of {split.samples} clips of {self._set} split {split_name} "
                f"are not in it as they are now (first: {missing[0]}); {self._encode_again()}"
            )

    def _check_files(self) -> None:
        for shard in self._shards:
            if shard.entry is None:
                continue
            path = self.folder / shard.entry.name
            size = path.stat().st_size if path.is_file() else None
            if size != shard.entry.bytes:
                seen = "is missing" if size is None else f"has {size} bytes, the manifest says {shard.entry.bytes}"
                raise ValueError(f"{path}: {seen}; copy the cache again, or {self._encode_again()}")

    def _blank(self, name: str, part: str) -> Tensor:
        path = self.folder / name
        try:
            rows = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); {self._encode_again()}") from error
        if rows.shape != self.manifest.rows[part] or rows.dtype != self.dtype:
            raise ValueError(f"{path}: {rows.dtype} {rows.shape} is not what the manifest says; {self._encode_again()}")
        return self.encoding.dtype.tensor(rows)

    def _path(self, number: int) -> Path:
        entry = self._shards[number].entry
        assert entry is not None, "a shard with clips has a file"
        return self.folder / entry.name

    def _encode_again(self) -> str:
        return (
            f"run `cami2v data encode shards={self._set} output={self.folder} encode.overwrite=true` with this run's "
            "experiment and settings, or leave data.cache out"
        )


def _contents(store: ShardStore, entry: ShardEntry) -> list[tuple[str, str | None]]:
    """Return key and content of every clip of a shard; None for one whose description cannot be read."""
    path = store.path(entry)
    found: list[tuple[str, str | None]] = []
    for sample in read_index(path):
        try:
            about = json.loads(read_members(path, sample, ("json",))["json"])
            found.append((sample.key, clip_content(sample.members["mp4"].sha256, about)))
        except (UnusableClip, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError):
            found.append((sample.key, None))
    return found
