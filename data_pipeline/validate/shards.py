"""Read a shard set for validation: nothing is taken for granted, and one broken part does not hide the others."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cami2v.file_hash import file_sha256
from cami2v.video import Frame, VideoInfo, probe, read_chunks
from data_pipeline.index import IndexedSample, build_index, read_index
from data_pipeline.manifest import FILE_NAME, FORMAT, VERSION, ShardEntry
from data_pipeline.shard_store import LocalShards, ShardStore
from data_pipeline.validate.clip import (
    ClipOptions,
    ClipResult,
    ReadClip,
    StoredCameras,
    check_rate,
    judge,
    unreadable,
)
from data_pipeline.validate.findings import Check, Observation, Place

BY_TIME = "videos"
"""The layout (manifest.json, generator) whose frames were chosen by timestamp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedShard:
    """A shard as the manifest lists it."""

    store: ShardStore
    split: str
    entry: ShardEntry

    @property
    def path(self) -> Path:
        """Where it is on this machine, if it is."""
        return self.store.folder / self.entry.name

    @property
    def place(self) -> Place:
        """The shard itself."""
        return Place(shard=self.entry.name, split=self.split)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSet:
    """What a manifest lists, splits that share sources included."""

    store: ShardStore
    shards: tuple[ListedShard, ...]
    sources: dict[str, tuple[str, ...]]
    by_time: bool
    metric: bool
    """Whether the set says that its clips are in metres."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardClipJob:
    """One sample to judge."""

    shard: ListedShard
    sample: IndexedSample
    by_time: bool
    metric: bool
    compare: bool


def list_set(source: Path | ShardStore) -> ListedSet | Observation:
    """Read the manifest without judging it; an observation where that is impossible."""
    store = LocalShards(source, str(source)) if isinstance(source, Path) else source
    try:
        content = json.loads((store.folder / FILE_NAME).read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            found = f"format {content['format']}, version {content['version']}"
            return Observation(Check.MANIFEST_UNREADABLE, found)
        shards = [
            ListedShard(store=store, split=name, entry=ShardEntry(**entry))
            for name, split in content["splits"].items()
            for entry in split["shards"]
        ]
        sources = {name: tuple(split["sources"]) for name, split in content["splits"].items()}
        by_time = content["generator"].get("layout") == BY_TIME
        metric = content["scale_policy"] == "metric"
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        return Observation(Check.MANIFEST_UNREADABLE, f"{type(error).__name__}: {error}")
    return ListedSet(store=store, shards=tuple(shards), sources=sources, by_time=by_time, metric=metric)


def check_shard(shard: ListedShard) -> list[Observation]:
    """Compare a shard's size and sha256 with the manifest."""
    if not shard.path.is_file():
        return [Observation(Check.SHARD_MISSING, "no such file")]
    size, entry = shard.path.stat().st_size, shard.entry
    if size != entry.bytes:
        return [Observation(Check.SHARD_HASH_MISMATCH, f"{size} bytes, the manifest says {entry.bytes}")]
    digest = file_sha256(shard.path)
    if digest != entry.sha256:
        found = f"sha256 {digest[:12]}..., the manifest says {entry.sha256[:12]}..."
        return [Observation(Check.SHARD_HASH_MISMATCH, found)]
    return []


def list_samples(shard: ListedShard) -> tuple[tuple[IndexedSample, ...], list[Observation]]:
    """Return the samples of a shard and what is wrong with its index; the tar decides where they differ."""
    if not shard.path.is_file():
        return (), []
    seen = []
    try:
        samples = read_index(shard.path)
    except ValueError as error:
        seen.append(Observation(Check.INDEX_MISMATCH, str(error)))
        try:
            samples = build_index(shard.path)
        except ValueError as damage:
            return (), [*seen, Observation(Check.MEMBER_CORRUPT, str(damage))]
    if len(samples) != shard.entry.samples:
        found = f"{len(samples)} samples, the manifest says {shard.entry.samples}"
        seen.append(Observation(Check.INDEX_MISMATCH, found))
    return samples, seen


def every_sample(listed: ListedSet) -> Iterator[ShardClipJob]:
    """Yield the samples of a set for purposes other than judging them; one index is read at a time."""
    for shard in listed.shards:
        yield from samples_of(listed, shard)


def samples_of(listed: ListedSet, shard: ListedShard) -> Iterator[ShardClipJob]:
    """Yield the samples of one shard."""
    for sample in list_samples(shard)[0]:
        yield ShardClipJob(shard=shard, sample=sample, by_time=listed.by_time, metric=listed.metric, compare=False)


def judge_shard_clip(job: ShardClipJob, *, options: ClipOptions) -> ClipResult:
    """Read one sample and judge it."""
    clip = open_shard_clip(job)
    return clip if isinstance(clip, ClipResult) else judge(clip, options, job.compare)


def open_shard_clip(job: ShardClipJob) -> ShardClip | ClipResult:
    """Read one sample; where that is impossible, return what is wrong."""
    place = Place(shard=job.shard.entry.name, clip=job.sample.key, split=job.shard.split)
    try:
        members = job.shard.store.read(job.shard.entry, job.sample)
    except (ValueError, OSError) as error:
        return unreadable(place, Observation(Check.MEMBER_CORRUPT, str(error)))
    try:
        about = json.loads(members["json"])
        stored = parse_cameras(members["cameras.npz"])
        clip = ShardClip(place, about, stored, members, cut=not job.by_time, metric=job.metric)
        differing = [name for name, digest in about["sha256"].items() if _sha256(members[name]) != digest]
    except (KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile, OSError) as error:
        if isinstance(error, _VideoError):
            return unreadable(place, Observation(Check.VIDEO_UNREADABLE, str(error)))
        return unreadable(place, Observation(Check.MEMBER_CORRUPT, f"{type(error).__name__}: {error}"))
    if differing:
        found = f"sha256 of .{differing[0]} is not the one in its json"
        return unreadable(place, Observation(Check.MEMBER_CORRUPT, found))
    return clip


class _VideoError(ValueError):
    """The mp4 member is no video."""


class ShardClip(ReadClip):
    """One sample; raises what its members raise where they do not follow docs/data-format.md."""

    def __init__(
        self,
        place: Place,
        about: dict[str, Any],
        cameras: StoredCameras,
        members: dict[str, bytes],
        *,
        cut: bool,
        metric: bool,
    ) -> None:
        self.place = place
        self.source_id = str(about["source_id"])
        self.captions = tuple(str(caption) for caption in about["captions"])
        self.cameras = cameras
        self.offsets_microseconds = np.asarray(about["timestamp_offsets_microseconds"], np.int64)
        self.frames_per_second = float(about["packed"]["frames_per_second"])
        self.cut = cut
        self.content = _sha256(members["mp4"])
        self.video = _probe(members["mp4"])
        self._data = members["mp4"]
        self._packed = {key: int(about["packed"][key]) for key in ("height", "width", "frames")}
        self.stored_pixel_aspect = float(about["pixel_aspect"])
        self._metric = metric

    def stored_claims(self) -> Iterator[Observation]:
        """Compare count, size and rate; look for the scale that a metric set promises."""
        if self._metric and self.cameras.metric_scale is None:
            yield Observation(Check.METRIC_SCALE_MISSING, "no metric_scale in cameras.npz")
        counts = {"video": self.video.frames, "cameras": len(self.cameras.world_to_camera)}
        counts["json"] = self._packed["frames"]
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count} in the {name}" for name, count in counts.items())
            yield Observation(Check.FRAME_COUNT_MISMATCH, found)
        size, said = (self.video.height, self.video.width), (self._packed["height"], self._packed["width"])
        if size != said:
            yield Observation(Check.FRAME_SIZE_MISMATCH, f"{size[0]}x{size[1]}, its json says {said[0]}x{said[1]}")
        yield from check_rate(self.video, self.frames_per_second)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode from memory."""
        for chunk in read_chunks(self._data, indices):
            yield from chunk


def parse_cameras(data: bytes) -> StoredCameras:
    """Read cameras.npz whatever its values; raises ValueError for wrong shapes, and what numpy and zipfile raise."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    frames = len(arrays["world_to_camera"])
    for name, shape in (("world_to_camera", (3, 4)), ("intrinsics_normalized", (4,)), ("timestamps_microseconds", ())):
        if arrays[name].shape != (frames, *shape):
            raise ValueError(f"{name} has shape {arrays[name].shape}, expected {(frames, *shape)}")
    scale = arrays.get("metric_scale")
    return StoredCameras(
        world_to_camera=arrays["world_to_camera"].astype(np.float64),
        intrinsics_normalized=arrays["intrinsics_normalized"].astype(np.float64),
        timestamps_microseconds=arrays["timestamps_microseconds"].astype(np.int64),
        metric_scale=None if scale is None else scale.astype(np.float64).reshape(-1),
    )


def _probe(data: bytes) -> VideoInfo:
    try:
        return probe(data)
    except ValueError as error:
        raise _VideoError(str(error)) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
