"""Figures of one clip, from its cameras and captions alone: no frame is decoded.

Imports no torch: many processes are started.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.bad_clips import BadClip
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.realestate10k.parse import parse_metric_scale
from data_pipeline.validate.cameras import check_poses, motion
from data_pipeline.validate.clip import StoredCameras
from data_pipeline.validate.shards import ShardClipJob, parse_cameras

FIGURES = {
    "frames": "frames per clip",
    "seconds": "length by the timestamps, seconds",
    "path": "path of the camera, units of its pose file",
    "path_metres": "path of the camera, metres",
    "turn_degrees": "turns of the camera summed up, degrees",
    "field_of_view_degrees": "horizontal field of view, degrees",
    "metres_per_unit": "metric scale, metres per unit",
    "caption_words": "words of a caption",
}
"""What is measured, with its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFigures:
    """One clip; a figure that it does not have is absent."""

    split: str
    source_id: str
    values: dict[str, tuple[float, ...]]


def measure_raw_clip(clip: PosedClip) -> ClipFigures | None:
    """Measure a clip of a folder; None where its cameras cannot be read."""
    try:
        track = clip.track()
        frames = len(track.timestamps_microseconds)
        scale = None if clip.metric_scale is None else parse_metric_scale(clip.metric_scale, frames, clip.clip_id)
    except BadClip:
        return None
    captions = clip.captions or ((track.caption,) if track.caption else ())
    cameras = StoredCameras(
        world_to_camera=track.world_to_camera,
        intrinsics_normalized=track.intrinsics_normalized,
        timestamps_microseconds=track.timestamps_microseconds,
        metric_scale=scale,
    )
    return _measure(clip.split or "not split", track.source_id, captions, cameras)


def measure_shard_clip(job: ShardClipJob) -> ClipFigures | None:
    """Measure a sample of a shard; None where it cannot be read."""
    try:
        members = job.shard.store.read(job.shard.entry, job.sample)
        about = json.loads(members["json"])
        return _measure(job.shard.split, about["source_id"], about["captions"], parse_cameras(members["cameras.npz"]))
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile):
        return None


def _measure(split: str, source_id: str, captions: Sequence[str], cameras: StoredCameras) -> ClipFigures | None:
    poses, intrinsics = cameras.world_to_camera, cameras.intrinsics_normalized
    if any(check_poses(poses)) or not (np.isfinite(intrinsics[0]).all() and intrinsics[0, 0] > 0):
        return None
    steps, turns = motion(poses)
    times = cameras.timestamps_microseconds
    values = {
        "frames": (float(len(poses)),),
        "seconds": (float(times[-1] - times[0]) / 1e6,),
        "path": (float(steps.sum()),),
        "turn_degrees": (float(turns.sum()),),
        "field_of_view_degrees": (float(np.degrees(2 * np.arctan(0.5 / intrinsics[0, 0]))),),
        "caption_words": tuple(float(len(caption.split())) for caption in captions),
    }
    if cameras.metric_scale is not None and len(cameras.metric_scale) == len(poses):
        scale = float(np.median(cameras.metric_scale))
        values |= {"metres_per_unit": (scale,), "path_metres": (scale * values["path"][0],)}
    return ClipFigures(split=split, source_id=source_id, values=values)
