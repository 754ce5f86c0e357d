"""Read a folder of RealEstate10K camera files as a list of source videos, each with the clips that lie in it.

Imports no torch: cutting clips starts many processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.realestate10k.layout import VIDEO_SUFFIXES
from data_pipeline.realestate10k.parse import first_line, source_id_of

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SCHEME = re.compile(r"^[a-z]+://(www\.)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedClip:
    """One camera file."""

    clip_id: str
    split: str | None
    """Name of the folder that holds the file, where the list has such folders."""
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVideo:
    """A video that one or more camera files name."""

    source_id: str
    address: str
    clips: tuple[ListedClip, ...]

    def last_microseconds(self) -> int:
        """Return the latest annotated time in the clips; 0 where no line can be read."""
        return max((_last_timestamp(clip.path) for clip in self.clips), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraList:
    """A list folder: videos ordered by id, and the camera files that name none."""

    videos: tuple[SourceVideo, ...]
    malformed: dict[str, str]
    """Why, by clip id."""

    @property
    def clips(self) -> int:
        """Number of camera files."""
        return sum(len(video.clips) for video in self.videos) + len(self.malformed)


def read_camera_list(folder: Path) -> CameraList:
    """Group the files `<clip>.txt` or `<split>/<clip>.txt` of a folder (or of its pose_files/) by source video.

    Raises ValueError where the folder has none, a clip id twice, or two addresses for one video.
    """
    if not folder.is_dir():
        raise ValueError(f"cameras={folder}: no such folder; expected RealEstate10K's camera files")
    clips = list(_camera_files(folder / "pose_files" if (folder / "pose_files").is_dir() else folder))
    if not clips:
        raise ValueError(f"cameras={folder}: no camera files; expected <clip>.txt or <split>/<clip>.txt")
    seen: dict[str, Path] = {}
    grouped: dict[str, tuple[str, list[ListedClip]]] = {}
    malformed = {}
    for clip in clips:
        if (other := seen.setdefault(clip.clip_id, clip.path)) != clip.path:
            raise ValueError(f"{clip.path}: clip id {clip.clip_id} is also that of {other}; give each clip one split")
        try:
            source_id, address = _source(clip.path)
        except BadClip as error:
            malformed[clip.clip_id] = str(error)
            continue
        first_address, members = grouped.setdefault(source_id, (address, []))
        if _SCHEME.sub("", address) != _SCHEME.sub("", first_address):
            raise ValueError(
                f"{clip.path}: {address} and {first_address} ({members[0].path}) have the same video id {source_id}; "
                "give different videos different names"
            )
        members.append(clip)
    videos = [
        SourceVideo(source_id=source_id, address=address, clips=tuple(members))
        for source_id, (address, members) in sorted(grouped.items())
    ]
    return CameraList(videos=tuple(videos), malformed=malformed)


def video_files(folder: Path, source_id: str) -> list[Path]:
    """List the files that a folder of source videos has for one of them."""
    candidates = [folder / f"{source_id}{suffix}" for suffix in VIDEO_SUFFIXES]
    return [path for path in candidates if path.is_file()]


def _camera_files(folder: Path) -> Iterator[ListedClip]:
    for path in sorted(folder.glob("*.txt")):
        yield ListedClip(clip_id=path.stem, split=None, path=path)
    for path in sorted(folder.glob("*/*.txt")):
        yield ListedClip(clip_id=path.stem, split=path.parent.name, path=path)


def _source(path: Path) -> tuple[str, str]:
    address = first_line(path)
    if "://" not in address:
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path} line 1: {address!r:.80} is not the address of a video")
    source_id = source_id_of(address, path)
    if not _FILE_NAME.fullmatch(source_id):
        raise BadClip(
            Reason.POSE_FILE_MALFORMED,
            f"{path} line 1: video id {source_id!r} cannot be a file name (letters, digits, '.', '-' and '_' only)",
        )
    return source_id, address


def _last_timestamp(path: Path) -> int:
    """Return the time in the last line that starts with a number; the file's faults are told when clips are cut."""
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        first = line.split(maxsplit=1)[:1]
        if first and first[0].isdigit():
            return int(first[0])
    return 0
