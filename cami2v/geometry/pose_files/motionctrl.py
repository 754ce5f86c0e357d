"""MotionCtrl trajectories: a JSON list of frames, each twelve numbers: the row-major 3x4 world-to-camera matrix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cami2v.geometry.pose_files.base import Fault, PosedFrames, PoseFileError, check_rigid, read_text

NUMBERS = 12
_WHAT = f"a list of frames, each a list of {NUMBERS} numbers (row-major 3x4 world-to-camera)"


def read(path: Path) -> PosedFrames:
    """Read the cameras of a file; raises PoseFileError."""
    try:
        rows = json.loads(read_text(path, _WHAT))
    except json.JSONDecodeError as error:
        raise PoseFileError(Fault.MALFORMED, f"{path}: is not JSON ({error}); expected {_WHAT}") from error
    if not isinstance(rows, list) or not rows or not all(_is_pose(row) for row in rows):
        raise PoseFileError(Fault.MALFORMED, f"{path}: expected {_WHAT}")
    poses = np.array(rows, dtype=np.float64).reshape(-1, 3, 4)
    check_rigid(poses, path)
    return PosedFrames(world_to_camera=poses)


def write(path: Path, frames: PosedFrames) -> None:
    """Write the poses, every digit of them."""
    rows = [pose.reshape(-1).tolist() for pose in frames.world_to_camera]
    path.write_text("[" + ",\n ".join(json.dumps(row) for row in rows) + "]\n", encoding="utf-8")


def _is_pose(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) == NUMBERS
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in row)
    )
