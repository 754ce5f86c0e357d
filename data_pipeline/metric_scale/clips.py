"""The part of the work that runs in many processes: read a clip, match its frames, triangulate.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from cami2v.geometry.metric_scale import square_pixels
from data_pipeline.bad_clips import BadClip
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.metric_scale.depth import DepthFrames
from data_pipeline.metric_scale.estimate import Lack, Unscaled, enough_points
from data_pipeline.metric_scale.points import ClipPoints, frames_needed, triangulate_clip
from data_pipeline.metric_scale.settings import ScaleSettings
from data_pipeline.realestate10k.track import PoseTrack, track_sha256
from data_pipeline.validate.cameras import check_intrinsics, check_poses, pixel_aspect
from data_pipeline.validate.clip import ClipResult, ReadClip
from data_pipeline.validate.findings import Place
from data_pipeline.validate.raw import RawClip
from data_pipeline.validate.shards import ShardClipJob, open_shard_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleJob:
    """One clip to place points in."""

    clip: PosedClip | ShardClipJob
    depth_stamp: str
    """Of the depth source's own data of this clip."""
    known_key: str | None
    """Of what an earlier run found out about it."""

    @property
    def clip_id(self) -> str:
        """The clip's id."""
        return self.clip.clip_id if isinstance(self.clip, PosedClip) else self.clip.sample.key

    @property
    def split(self) -> str | None:
        """The split it is in, if any."""
        return self.clip.split if isinstance(self.clip, PosedClip) else self.clip.shard.split


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPoints:
    """Enough points, and the frames they are in."""

    points: ClipPoints
    frames: DepthFrames


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedClip:
    """What one process found out about a clip."""

    clip_id: str
    key: str | None
    """Equal for equal cameras, frames and depth data; None where the clip cannot be read."""
    cameras_sha256: str
    result: Unscaled | PlacedPoints | None
    """None: the key is the known one, nothing was computed."""
    given: bool
    """Whether the clip has a scale already; then nothing was computed either."""


def place_points(job: ScaleJob, *, settings: ScaleSettings) -> PlacedClip:
    """Read a clip and triangulate; whatever is wrong with it is the result."""
    try:
        clip = _open(job)
        if clip.cameras.metric_scale is not None:
            return PlacedClip(clip_id=job.clip_id, key=None, cameras_sha256="", result=None, given=True)
        cameras = _cameras_sha256(clip)
        key = hashlib.sha256(json.dumps([cameras, clip.content, job.depth_stamp]).encode()).hexdigest()
        result = None if key == job.known_key else _place(job, clip, settings)
    except (BadClip, _UnreadableError) as error:
        unreadable = Unscaled(reason=Lack.UNREADABLE, message=str(error))
        return PlacedClip(clip_id=job.clip_id, key=None, cameras_sha256="", result=unreadable, given=False)
    return PlacedClip(clip_id=job.clip_id, key=key, cameras_sha256=cameras, result=result, given=False)


class _UnreadableError(ValueError):
    """A stored clip that does not follow docs/data-format.md, or frames that do not decode."""


def _place(job: ScaleJob, clip: ReadClip, settings: ScaleSettings) -> Unscaled | PlacedPoints:
    poses, intrinsics = clip.cameras.world_to_camera, clip.cameras.intrinsics_normalized
    faults = [*check_poses(poses), *check_intrinsics(intrinsics, clip.video.height, clip.video.width)]
    if faults:
        raise _UnreadableError(f"{faults[0].check}: {faults[0].found}")
    if len(poses) < 2:
        return Unscaled(reason=Lack.TOO_FEW_MATCHES, message="a single frame")
    numbers = frames_needed(len(poses), settings.depth_frames)
    try:
        frames = dict(zip(numbers, clip.frames(numbers), strict=True))
    except ValueError as error:
        raise _UnreadableError(str(error)) from error
    points = triangulate_clip(frames, poses, intrinsics, settings)
    lack = enough_points(points, settings)
    if lack is not None:
        return lack
    aspect = pixel_aspect(intrinsics, clip.video.height, clip.video.width)
    chosen = tuple(frame.number for frame in points.frames)
    images = np.stack(
        [square_pixels(frames[number], aspect=aspect, short_side=settings.depth_short_side) for number in chosen]
    )
    return PlacedPoints(
        points=points, frames=DepthFrames(clip_id=job.clip_id, split=job.split, numbers=chosen, images=images)
    )


def _open(job: ScaleJob) -> ReadClip:
    if isinstance(job.clip, PosedClip):
        return RawClip(Place(shard="", clip=job.clip_id, split=job.split), job.clip)
    clip = open_shard_clip(job.clip)
    if isinstance(clip, ClipResult):
        raise _UnreadableError(f"{job.clip.shard.path} sample {job.clip_id}: {clip.findings[0].found}")
    return clip


def _cameras_sha256(clip: ReadClip) -> str:
    """Return the checksum packing compares: the same for a raw clip and for its sample."""
    track = PoseTrack(
        address="",
        source_id=clip.source_id,
        caption=None,
        video_path=None,
        timestamps_microseconds=clip.cameras.timestamps_microseconds,
        intrinsics_normalized=clip.cameras.intrinsics_normalized,
        world_to_camera=clip.cameras.world_to_camera,
    )
    return track_sha256(track)
