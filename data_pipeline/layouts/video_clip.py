"""Cut clips of foreign layouts: the file that is named, and the times of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from cami2v.file_hash import file_sha256
from cami2v.video import probe
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.layouts.frames import VideoFile
from data_pipeline.realestate10k.track import PoseTrack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedClip(PosedClip):
    """A cut clip and its camera file, both named by a list."""

    pose_path: Path
    video: Path

    @property
    def where(self) -> str:
        """The camera file."""
        return str(self.pose_path)

    @property
    def matched_by_time(self) -> bool:
        """False: cut clips."""
        return False

    def frame_source(self, track: PoseTrack) -> VideoFile:
        """Return the video file; raises BadClip where there is none."""
        return named_video([self.video], self.where)

    def poses_sha256(self, track: PoseTrack) -> str:
        """Return the checksum of the camera file."""
        return file_sha256(self.pose_path)


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
