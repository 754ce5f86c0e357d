"""Inspect clips and keep what was found, so that an interrupted run does not read every video again.

Clips are inspected in small groups, one file per group in the working folder. A kept result counts only while the
files it came from have the size and time of modification they had.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from data_pipeline.array_tasks import Share
from data_pipeline.bad_clips import BadClip
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.parallel import Runner, progress_bar
from data_pipeline.realestate10k.inspect import InspectedClip, inspect_clip

Group = tuple[PosedClip, ...]
_GROUP_CLIPS = 8

_Stamps = dict[Path, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClip:
    """What planning needs of a clip that can be packed; all of them are held in memory."""

    clip_id: str
    source_id: str
    split: str | None
    frames: int
    metric: bool
    sha256: str
    """Of everything of the clip that goes into its sample."""
    farthest_microseconds: int
    """Largest distance of a frame from its annotated time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Inspects clips, and remembers them in `folder`; small, because it travels with every job."""

    folder: Path
    min_frames: int
    default_caption: str | None
    tool: str

    def clip(self, files: PosedClip, group: Group) -> InspectedClip:
        """Return one clip of a group that was inspected, from memory or again; raises BadClip."""
        found = self._kept(group).get(files.clip_id)
        return self._inspect(files) if found is None else found

    def judge(self, group: Group) -> list[PlannedClip | BadClip]:
        """Inspect what is not remembered of a group of clips; bad ones are looked at again each time."""
        kept = self._kept(group)
        stamps: dict[str, _Stamps] = {}
        clips: dict[str, InspectedClip] = dict(kept)
        results: list[PlannedClip | BadClip] = []
        for files in group:
            try:
                clip = clips.get(files.clip_id) or self._inspect(files)
            except BadClip as error:
                results.append(error)
                continue
            clips[files.clip_id] = clip
            results.append(_planned(clip))
        if len(clips) > len(kept):
            stamps = {clip_id: _stamps(clip) for clip_id, clip in clips.items()}
            self._keep(group, {clip_id: (stamps[clip_id], clip) for clip_id, clip in clips.items()})
        return results

    def _inspect(self, files: PosedClip) -> InspectedClip:
        return inspect_clip(files, min_frames=self.min_frames, default_caption=self.default_caption)

    def _path(self, group: Group) -> Path:
        made_from = (self.tool, [field.name for field in fields(InspectedClip)], self.min_frames, self.default_caption)
        return self.folder / f"{hashlib.sha256(repr((made_from, group)).encode()).hexdigest()[:32]}.inspected"

    def _kept(self, group: Group) -> dict[str, InspectedClip]:
        try:
            data = self._path(group).read_bytes()
        except FileNotFoundError:
            return {}
        checksum, content = data[:32], data[32:]
        if hashlib.sha256(content).digest() != checksum:
            return {}
        # Written by this class into a folder only this user can read.
        rows: Mapping[str, tuple[_Stamps, InspectedClip]] = pickle.loads(content)
        return {clip_id: clip for clip_id, (stamps, clip) in rows.items() if stamps == _stamps(clip)}

    def _keep(self, group: Group, rows: Mapping[str, tuple[_Stamps, InspectedClip]]) -> None:
        content = pickle.dumps(dict(rows))
        with suppress(FileNotFoundError):  # the set was finished by another task, and the folder is gone
            descriptor, temporary = tempfile.mkstemp(prefix=".", dir=self.folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, self._path(group))


def groups_of(clips: Sequence[PosedClip]) -> list[Group]:
    """Put clips of one source one after another, so that a process opens its video once, and cut the row in groups."""
    ordered = sorted(clips, key=lambda clip: (clip.address, clip.clip_id))
    return [tuple(ordered[start : start + _GROUP_CLIPS]) for start in range(0, len(ordered), _GROUP_CLIPS)]


def inspect_all(
    groups: Sequence[Group], inspection: Inspection, share: Share, run: Runner, *, progress: bool
) -> Iterator[tuple[PosedClip, PlannedClip | BadClip]]:
    """Judge all clips. Tasks that do so at once begin at different places and take over each other's results."""
    mine = share.starting_with_mine(groups)
    total = sum(len(group) for group in groups)
    with progress_bar(None, what="inspect", unit="clip", total=total, show=progress) as bar:
        for group, results in zip(mine, run(inspection.judge, mine), strict=True):
            bar.update(len(group))
            yield from zip(group, results, strict=True)


def clip_sha256(clip: InspectedClip) -> str:
    """Return the checksum of all that goes into the clip's sample, apart from how frames are stored."""
    content = (
        clip.files.clip_id,
        clip.source_id,
        clip.video_sha256,
        clip.poses_sha256,
        clip.captions,
        clip.files.metric_scale,
        clip.frame_indices.tolist(),
        clip.offsets_microseconds.tolist(),
        clip.frames_per_second,
        clip.pixel_aspect,
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _planned(clip: InspectedClip) -> PlannedClip:
    return PlannedClip(
        clip_id=clip.files.clip_id,
        source_id=clip.source_id,
        split=clip.files.split,
        frames=len(clip.frame_indices),
        metric=clip.files.metric_scale is not None,
        sha256=clip_sha256(clip),
        farthest_microseconds=int(abs(clip.offsets_microseconds).max()),
    )


def _stamps(value: Any) -> _Stamps:
    """Return size and modification time of every file that is named anywhere in a value."""
    if isinstance(value, Path):
        try:
            status = value.stat()
        except OSError:
            return {value: (-1, -1)}
        return {value: (status.st_size, status.st_mtime_ns)} if value.is_file() else {}
    inner: list[Any] = []
    if is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, (tuple, list)):
        inner = list(value)
    elif isinstance(value, dict):
        inner = list(value.values())
    return {path: stamp for each in inner for path, stamp in _stamps(each).items()}
