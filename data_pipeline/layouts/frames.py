"""Where a clip's frames come from: a video file, or numbered pictures.

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cami2v.file_hash import file_sha256
from cami2v.video import Frame, VideoInfo, probe, read_chunks


class FrameSource(ABC):
    """Frames of one video; hashable and small, so that it travels to other processes and keys a cache."""

    @abstractmethod
    def info(self) -> VideoInfo:
        """Return size, rate and frame times; raises ValueError where they cannot be read."""

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode the frames with these numbers, one after another; raises ValueError where one does not decode."""

    @abstractmethod
    def sha256(self) -> str:
        """Return the checksum of the stored frames."""

    @abstractmethod
    def __str__(self) -> str:
        """Name the file, for messages."""


@dataclass(frozen=True, slots=True)
class VideoFile(FrameSource):
    """A video file."""

    path: Path

    def info(self) -> VideoInfo:
        """Return what the file says of itself."""
        return probe(self.path)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode a bounded number of frames at a time."""
        for chunk in read_chunks(self.path, indices):
            yield from chunk

    def sha256(self) -> str:
        """Return the checksum of the file."""
        return file_sha256(self.path)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles(FrameSource):
    """Pictures in order, one file per frame."""

    paths: tuple[Path, ...]
    times_seconds: tuple[float, ...]
    """When each was taken, from the first on."""

    def info(self) -> VideoInfo:
        """Return the size all pictures share, read from their headers."""
        return still_info(map(file_size, self.paths), self.times_seconds, str(self))

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode one picture after another."""
        for index in indices:
            yield decode_image(_file_bytes(self.paths[index]), str(self.paths[index]))

    def sha256(self) -> str:
        """Return the checksum of all files, one after another."""
        return sha256_of_all(_file_bytes(path) for path in self.paths)

    def __str__(self) -> str:
        return f"{self.paths[0].parent} ({len(self.paths)} pictures)"


def still_info(sizes: Iterable[tuple[int, int]], times_seconds: Sequence[float], name: str) -> VideoInfo:
    """Describe pictures of these (width, height) as a video; its rate is that of the median step.

    Raises ValueError for pictures of several sizes, and for times that do not increase.
    """
    distinct = sorted(set(sizes))
    if len(distinct) != 1:
        raise ValueError(f"{name}: expected pictures of one size, got {distinct or 'no picture'}")
    ((width, height),) = distinct
    times = np.asarray(times_seconds, np.float64)
    if np.any(np.diff(times) <= 0):
        raise ValueError(f"{name}: the times of its pictures do not increase")
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    return VideoInfo(
        frames=len(times),
        height=height,
        width=width,
        frames_per_second=1 / step,
        rotation_degrees=0,
        pixel_aspect=1.0,
        timestamps_seconds=times,
    )


def decode_image(data: bytes, name: str) -> Frame:
    """Decode a picture to RGB as it is stored: an EXIF rotation is left alone, poses belong to the stored grid."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{name}: not a readable picture ({error})") from error


def sha256_of_all(parts: Iterable[bytes]) -> str:
    """Return the checksum of several byte strings with their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Return width and height from a picture's header."""
    try:
        return Image.open(io.BytesIO(data)).size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{name}: not a readable picture ({error})") from error


def file_size(path: Path) -> tuple[int, int]:
    """Return width and height of a picture file; raises ValueError where it cannot be read."""
    return image_size(_file_bytes(path), str(path))


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: no such picture, or not readable ({error.strerror})") from error
