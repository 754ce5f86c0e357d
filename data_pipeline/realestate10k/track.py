"""The cameras of one clip, as every reader gives them, and what no camera can be.

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from data_pipeline.bad_clips import BadClip, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseTrack:
    """Annotated cameras of one clip."""

    address: str
    source_id: str
    caption: str | None
    video_path: str | None
    timestamps_microseconds: Int64[np.ndarray, " frames"]
    intrinsics_normalized: Float64[np.ndarray, "frames 4"]
    world_to_camera: Float64[np.ndarray, "frames 3 4"]


def check_track(track: PoseTrack, name: Callable[[int], str]) -> None:
    """Raise BadClip for cameras that cannot be meant; `name` says where the camera of a frame stands."""
    finite = np.isfinite(track.world_to_camera).all(axis=(1, 2)) & np.isfinite(track.intrinsics_normalized).all(axis=1)
    if not finite.all():
        wrong = np.flatnonzero(~finite)
        raise BadClip(Reason.POSE_NOT_FINITE, f"{name(int(wrong[0]))}: the camera has a NaN or infinite number")
    rotations = track.world_to_camera[:, :, :3]
    error = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    wrong = np.flatnonzero((error > 1e-3) | (np.linalg.det(rotations) < 0))
    if wrong.size:
        raise BadClip(
            Reason.ROTATION_NOT_RIGID,
            f"{name(int(wrong[0]))}: the 3x3 part is no rotation (R R^T is off by {error[wrong[0]]:.2g}, "
            f"determinant {np.linalg.det(rotations[wrong[0]]):.2g})",
        )
    focal, principal = track.intrinsics_normalized[:, :2], track.intrinsics_normalized[:, 2:]
    wrong = np.flatnonzero(((focal < 0.1) | (focal > 10)).any(1) | ((principal < 0) | (principal > 1)).any(1))
    if wrong.size:
        shown = " ".join(f"{value:g}" for value in track.intrinsics_normalized[wrong[0]])
        raise BadClip(
            Reason.INTRINSICS_IMPLAUSIBLE,
            f"{name(int(wrong[0]))}: fx fy cx cy = {shown}; they must be divided by image width and height "
            "(0.1 <= fx, fy <= 10; 0 <= cx, cy <= 1)",
        )
    wrong = np.flatnonzero(np.diff(track.timestamps_microseconds) <= 0)
    if wrong.size:
        raise BadClip(
            Reason.TIMESTAMPS_NOT_INCREASING,
            f"{name(int(wrong[0]) + 1)}: its timestamp is not after the one before",
        )


def track_sha256(track: PoseTrack) -> str:
    """Return the checksum of cameras, times and source, for layouts whose cameras are no file of their own."""
    digest = hashlib.sha256(track.source_id.encode())
    for array in (track.timestamps_microseconds, track.intrinsics_normalized, track.world_to_camera):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
