"""Camera poses as the files of other programs hold them, and what is wrong with a file.

Imports no torch: packing reads these files in many processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from jaxtyping import Float64

ORTHONORMAL_WITHIN = 1e-2
"""Largest entry of R R^T - I of a rotation in a file: some are written with three digits."""


class Fault(StrEnum):
    """What is wrong with a pose file."""

    MALFORMED = "malformed"
    NOT_FINITE = "not finite"
    NOT_RIGID = "not rigid"


class PoseFileError(ValueError):
    """A pose file that cannot be read or written; the message is one line that names the file."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault

    def __reduce__(self) -> tuple[type[PoseFileError], tuple[Fault, str]]:
        return PoseFileError, (self.fault, str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class PosedFrames:
    """Cameras in the order of their frames, OpenCV axes. None where a file does not say."""

    world_to_camera: Float64[np.ndarray, "frames 3 4"]
    intrinsics_normalized: Float64[np.ndarray, "frames 4"] | None = None
    """fx fy cx cy divided by image width and height; pixel centres at k + 0.5."""
    times_seconds: Float64[np.ndarray, " frames"] | None = None
    names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    """Height and width of the images."""


def read_text(path: Path, what: str) -> str:
    """Read a text file; raises PoseFileError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PoseFileError(Fault.MALFORMED, f"{path}: no such text file; expected {what}") from error


def check_rigid(world_to_camera: Float64[np.ndarray, "frames 3 4"], where: object) -> None:
    """Raise PoseFileError unless all poses are finite and rigid.

    Mirrored ones (determinant -1) pass where all are: some published paths are, and it cancels in relative poses.
    """
    rotations = world_to_camera[:, :, :3]
    finite = np.isfinite(world_to_camera).all(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        deviation = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    wrong = np.flatnonzero(~finite | ~(deviation < ORTHONORMAL_WITHIN))
    if wrong.size:
        raise PoseFileError(
            Fault.NOT_RIGID if finite.all() else Fault.NOT_FINITE,
            f"{where}: {wrong.size} of {len(finite)} poses, the first at frame {wrong[0]}, are not finite rigid "
            "transforms; the first three columns must be a rotation matrix",
        )
    handedness = np.linalg.det(rotations) > 0
    if handedness.any() and not handedness.all():
        raise PoseFileError(
            Fault.NOT_RIGID,
            f"{where}: frame {int(np.flatnonzero(~handedness)[0])} is mirrored (determinant -1) and others are not; a "
            "path is mirrored as a whole or not at all",
        )


def rotation_of(world_to_camera: Float64[np.ndarray, "frames 3 4"], form: str) -> Float64[np.ndarray, "frames 3 3"]:
    """Return rotations for a format of quaternions; raises PoseFileError for mirrored ones, which it cannot hold."""
    rotations = world_to_camera[:, :, :3]
    if (np.linalg.det(rotations) < 0).any():
        raise PoseFileError(
            Fault.NOT_RIGID,
            f"{form}: a mirrored path (determinant -1) has no quaternions; write it relative to one of its frames",
        )
    return rotations


def camera_to_world(world_to_camera: Float64[np.ndarray, "frames 3 4"]) -> Float64[np.ndarray, "frames 4 4"]:
    """Invert poses: a general inverse, as everywhere in this house."""
    poses = np.tile(np.eye(4), (len(world_to_camera), 1, 1))
    poses[:, :3] = world_to_camera
    return np.linalg.inv(poses)
