"""Trajectories in TUM's format: `timestamp tx ty tz qx qy qz qw` per line: seconds, camera-to-world.

The format does not say which way the camera's axes point (TUM's own data sets: OpenCV), and has no intrinsics. Ours,
beside it, is intrinsics.txt: `fx fy cx cy width height` in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from cami2v.geometry.pose_files.base import (
    Fault,
    PosedFrames,
    PoseFileError,
    camera_to_world,
    read_text,
    rotation_of,
)

CameraAxes = Literal["opencv", "opengl"]
"""opencv: z forward, y down. opengl: z backward, y up."""

INTRINSICS_FILE = "intrinsics.txt"
_POSE = "timestamp tx ty tz qx qy qz qw"
_INTRINSICS = "fx fy cx cy width height"


def read(path: Path, camera_axes: CameraAxes = "opencv") -> PosedFrames:
    """Read a trajectory, with the intrinsics beside it if there are any; raises PoseFileError."""
    rows = pose_rows(path)
    intrinsics, size = None, None
    if (path.parent / INTRINSICS_FILE).is_file():
        normalized, size = read_intrinsics(path.parent / INTRINSICS_FILE)
        intrinsics = np.tile(normalized, (len(rows), 1))
    return PosedFrames(
        world_to_camera=world_to_camera(rows[:, 1:], camera_axes, str(path)),
        intrinsics_normalized=intrinsics,
        times_seconds=rows[:, 0].copy(),
        size=size,
    )


def write(path: Path, frames: PosedFrames) -> None:
    """Write poses that have times, OpenCV axes, every digit of them."""
    assert frames.times_seconds is not None
    rotations = rotation_of(frames.world_to_camera, "TUM")
    quaternions = Rotation.from_matrix(rotations).inv().as_quat()
    centres = camera_to_world(frames.world_to_camera)[:, :3, 3]
    lines = [f"# {_POSE}; camera-to-world, OpenCV axes"]
    for time, centre, quaternion in zip(frames.times_seconds, centres, quaternions, strict=True):
        lines.append(" ".join(map(repr, [float(time), *centre.tolist(), *quaternion.tolist()])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pose_rows(path: Path) -> Float64[np.ndarray, "poses 8"]:
    """Read the numbers of a trajectory; raises PoseFileError with file and line."""
    return _numbers(path, 8, _POSE)


def read_intrinsics(path: Path) -> tuple[Float64[np.ndarray, " 4"], tuple[int, int]]:
    """Read normalized fx fy cx cy and the image's (height, width); raises PoseFileError."""
    rows = _numbers(path, 6, _INTRINSICS)
    if len(rows) != 1:
        raise PoseFileError(Fault.MALFORMED, f"{path}: {len(rows)} lines, expected one")
    width, height = rows[0, 4:]
    return rows[0, :4] / np.tile(rows[0, 4:], 2), (round(height), round(width))


def world_to_camera(
    rows: Float64[np.ndarray, "frames 7"], camera_axes: CameraAxes, where: str
) -> Float64[np.ndarray, "frames 3 4"]:
    """Turn `tx ty tz qx qy qz qw`, camera-to-world, into world-to-camera with OpenCV axes; raises PoseFileError."""
    lengths = np.linalg.norm(rows[:, 3:], axis=1)
    if np.abs(lengths - 1).max() > 1e-2:
        worst = int(np.abs(lengths - 1).argmax())
        raise PoseFileError(
            Fault.NOT_RIGID, f"{where}: the quaternion of pose {worst} has length {lengths[worst]:.3g}, not 1"
        )
    rotations = Rotation.from_quat(rows[:, 3:]).as_matrix()
    if camera_axes == "opengl":
        rotations = rotations * np.array([1.0, -1.0, -1.0])
    inverse = rotations.transpose(0, 2, 1)
    return np.concatenate([inverse, -inverse @ rows[:, :3, None]], axis=2)


def numbered_lines(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """Return the fields of lines that are neither empty nor comments, with their numbers; raises PoseFileError."""
    text = read_text(path, f"lines of {what}")
    numbered = [(number, line.split("#", 1)[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    if not any(fields for _, fields in numbered):
        raise PoseFileError(Fault.MALFORMED, f"{path}: empty; expected lines of {what}")
    return [(number, fields) for number, fields in numbered if fields]


def _numbers(path: Path, count: int, what: str) -> Float64[np.ndarray, "lines numbers"]:
    rows = []
    for number, fields in numbered_lines(path, what):
        try:
            row = [float(field) for field in fields]
        except ValueError as error:
            raise PoseFileError(Fault.MALFORMED, f"{path} line {number}: {error}; expected {what}") from error
        if len(row) != count or not np.all(np.isfinite(row)):
            raise PoseFileError(Fault.MALFORMED, f"{path} line {number}: expected {count} finite numbers {what}")
        rows.append(row)
    return np.array(rows)
