"""Read pixelSplat's chunks: [<split>/]<number>.torch, each a list of clips with JPEG frames.

A clip is {key, url, timestamps int64 [frames] in microseconds, cameras [frames, 18], images: one uint8 tensor of JPEG
bytes per frame}. A camera row is fx fy cx cy divided by width and height, two zeros, and the row-major 3x4
world-to-camera matrix, OpenCV axes. index.json, if there is one, maps keys to chunks.
"""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cami2v.video import Frame, VideoInfo
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.layouts.clip import FASTEST, PosedClip, ReadSettings
from data_pipeline.layouts.frames import FrameSource, decode_image, image_size, sha256_of_all, still_info
from data_pipeline.layouts.side_files import known_source, read_side_files
from data_pipeline.realestate10k.parse import source_id_of
from data_pipeline.realestate10k.track import PoseTrack, check_track

_NUMBERS = 18


def recognise(folder: Path) -> bool:
    """Return whether the folder holds .torch files, directly or in split folders."""
    return any(True for _ in _chunks(folder))


def find_clips(folder: Path, settings: ReadSettings) -> tuple[PosedClip, ...]:
    """List the clips of all chunks; opens a chunk only where no index.json lists its keys."""
    beside = read_side_files(folder)
    return tuple(
        ChunkClip(
            clip_id=key,
            split=split,
            address=str(chunk),
            captions=beside.captions.get(key, ()),
            metric_scale=beside.metric_scales.get(key),
            chunk=chunk,
            stated_source=beside.sources.get(key),
            each_clip_is_a_source=settings.each_clip_is_a_source,
            frames_per_second=settings.frames_per_second,
        )
        for chunk, split in _chunks(folder)
        for key in _keys(chunk)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkClip(PosedClip):
    """A clip inside a chunk."""

    chunk: Path
    stated_source: str | None
    each_clip_is_a_source: bool
    frames_per_second: float | None
    """Given by the user: replaces timestamps that count frames instead of microseconds."""

    @property
    def where(self) -> str:
        """The chunk and the clip's key."""
        return f"{self.chunk} clip {self.clip_id}"

    @property
    def matched_by_time(self) -> bool:
        """False: a camera per picture."""
        return False

    def track(self) -> PoseTrack:
        """Read cameras and times; raises BadClip where they are not what the format says."""
        entry = _entry(self.chunk, self.clip_id)
        try:
            cameras = np.asarray(entry["cameras"], np.float64)
            times = np.asarray(entry["timestamps"], np.int64)
            url, pictures = str(entry["url"]), len(entry["images"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadClip(Reason.POSE_FILE_MALFORMED, f"{self.where}: {type(error).__name__} {error}") from error
        if cameras.shape != (len(times), _NUMBERS) or len(times) != pictures:
            raise BadClip(
                Reason.FRAME_COUNT_MISMATCH,
                f"{self.where}: {pictures} images, {len(times)} timestamps and cameras of shape {cameras.shape}; "
                f"expected one timestamp and {_NUMBERS} numbers for each image",
            )
        if self.frames_per_second is not None:
            times = np.rint(np.arange(pictures) * 1e6 / self.frames_per_second).astype(np.int64)
        stated = self.stated_source or (source_id_of(url, Path(self.where)) if url else None)
        track = PoseTrack(
            address=url,
            source_id=known_source(self.clip_id, stated, self.each_clip_is_a_source, self.where),
            caption=None,
            video_path=None,
            timestamps_microseconds=times,
            intrinsics_normalized=np.ascontiguousarray(cameras[:, :4]),
            world_to_camera=cameras[:, 6:].reshape(-1, 3, 4).copy(),
        )
        check_track(track, lambda frame: f"{self.where} frame {frame}")
        if len(times) > 1 and np.median(np.diff(times)) < 1e6 / FASTEST:
            raise BadClip(
                Reason.TIMESTAMPS_NOT_INCREASING,
                f"{self.where}: timestamps {times[:3].tolist()}... are no microseconds (over {FASTEST} frames/s); "
                "set pack.reading.frames_per_second",
            )
        return track

    def frame_source(self, track: PoseTrack) -> FrameSource:
        """Return the clip's JPEG pictures."""
        times = (track.timestamps_microseconds - track.timestamps_microseconds[0]) / 1e6
        return ChunkImages(chunk=self.chunk, key=self.clip_id, times_seconds=tuple(times.tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkImages(FrameSource):
    """JPEG pictures of one clip of a chunk."""

    chunk: Path
    key: str
    times_seconds: tuple[float, ...]

    def info(self) -> VideoInfo:
        """Return the size all pictures share, and the rate of the timestamps."""
        sizes = (image_size(data, f"{self} picture {number}") for number, data in enumerate(self._pictures()))
        return still_info(sizes, self.times_seconds, str(self))

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode one picture after another."""
        pictures = _entry(self.chunk, self.key)["images"]
        for index in indices:
            yield decode_image(pictures[index].numpy().tobytes(), f"{self} picture {index}")

    def sha256(self) -> str:
        """Return the checksum of all pictures, one after another."""
        return sha256_of_all(self._pictures())

    def __str__(self) -> str:
        return f"{self.chunk} clip {self.key}"

    def _pictures(self) -> Iterator[bytes]:
        return (picture.numpy().tobytes() for picture in _entry(self.chunk, self.key)["images"])


def _chunks(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """List chunks with their splits: those that are there, and those that an index.json promises."""
    splits = sorted({path.parent for path in folder.glob("*/*.torch")})
    for below, split in ((folder, None), *((each, each.name) for each in splits)):
        names = {path.name for path in below.glob("*.torch")}
        if names and (below / "index.json").is_file():
            names |= _index(below / "index.json").keys()
        yield from ((below / name, split) for name in sorted(names))


@functools.lru_cache(maxsize=1)
def _index(path: Path) -> dict[str, list[str]]:
    by_chunk: dict[str, list[str]] = {}
    try:
        for key, chunk in json.loads(path.read_text(encoding="utf-8")).items():
            by_chunk.setdefault(chunk, []).append(key)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f'{path}: expected {{"<clip>": "<chunk>.torch"}} ({error})') from error
    return by_chunk


def _keys(chunk: Path) -> list[str]:
    index = chunk.parent / "index.json"
    indexed = _index(index).get(chunk.name) if index.is_file() else None
    return list(_load(chunk)) if indexed is None else indexed


def _entry(chunk: Path, key: str) -> dict[str, Any]:
    try:
        return _load(chunk)[key]
    except KeyError as error:
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{chunk}: has no clip {key}, though index.json says so") from error


@functools.lru_cache(maxsize=2)
def _load(chunk: Path) -> dict[str, dict[str, Any]]:
    """Map a chunk's clips by key; the pictures stay on disk until they are touched."""
    # Imported here: torch is heavy and only this layout needs it while packing.
    import torch

    try:
        # weights_only: plain containers and tensors, no pickled code is run.
        clips = torch.load(chunk, map_location="cpu", weights_only=True, mmap=True)
        return {str(clip["key"]): clip for clip in clips}
    except FileNotFoundError as error:
        raise BadClip(Reason.VIDEO_MISSING, f"{chunk}: no such chunk, though index.json lists clips of it") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise BadClip(
            Reason.VIDEO_UNREADABLE, f"{chunk}: not a pixelSplat chunk, a list of clips with a key each ({reason:.200})"
        ) from error
