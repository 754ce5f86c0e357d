"""Cut clips of foreign layouts: the file that is named, and the times of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from cami2v.video import probe
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.layouts.frames import VideoFile


def named_video(candidates: Sequence[Path], where: str) -> VideoFile:
    """Return the first file that is there; raises BadClip where none is."""
    for path in candidates:
        if path.is_file():
            return VideoFile(path)
    raise BadClip(Reason.VIDEO_MISSING, f"{candidates[0]}: no such video (needed by {where})")


def frame_times(video: Path, cameras: int, where: str) -> Int64[np.ndarray, " frames"]:
    """Return the times of a cut clip's frames in microseconds, for cameras that carry none.

    Raises BadClip where the video is not there, cannot be read, or has not one frame for each camera.
    """
    path = named_video([video], where).path
    try:
        times = probe(path).timestamps_seconds
    except ValueError as error:
        raise BadClip(Reason.VIDEO_UNREADABLE, str(error)) from error
    if len(times) != cameras:
        raise BadClip(
            Reason.FRAME_COUNT_MISMATCH,
            f"{path}: {len(times)} frames, but {where} has {cameras} cameras; a cut clip needs one for each",
        )
    return np.rint(times * 1e6).astype(np.int64)
