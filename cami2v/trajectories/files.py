"""Camera paths from files and into files, in every format of `cami2v.geometry.pose_files`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from cami2v.geometry.cameras import interpolate_poses, invert_pose
from cami2v.geometry.pose_files.base import PosedFrames
from cami2v.geometry.pose_files.formats import FORMATS, WRITTEN, format_for, format_of
from cami2v.geometry.timing import interpolate_matrices
from cami2v.trajectories.trajectory import CameraPath, Progress, Shot, Trajectory

Timing = Literal["frames", "times", "even"]
"""How a file's cameras spread over the path: frames evenly, as its times say, or at even speed (equal steps of the
distance moved and the angle turned in radians, added as squares)."""

Interpolation = Literal["so3", "published"]
"""published: entry by entry, as the published demo: rotations shrink between poses that differ. Compatibility only."""

EXACT = 1e-8
"""Rotations of files that are further from orthonormal are brought to the nearest orthonormal matrix."""


def read_path(
    path: Path, *, form: str | None = None, timing: Timing = "frames", interpolation: Interpolation = "so3"
) -> CameraPath:
    """Read a file as a path; its format is recognised where `form` is None.

    Mirrored paths (determinant -1) stay mirrored: it cancels as soon as poses are relative.

    Raises:
        ValueError: no such file, an unknown format, or what the format's reader finds wrong.
    """
    form = form or format_of(path)
    if not path.exists():
        raise ValueError(f"trajectory file {path} does not exist; a path is read from {_allowed()}")
    if form not in FORMATS:
        raise ValueError(f"trajectory file {path}: format {form or 'not recognised'}; a path is read from {_allowed()}")
    frames = FORMATS[form].read(path)
    poses = _orthonormal(invert_pose(_homogeneous(frames.world_to_camera)))
    intrinsics = None if frames.intrinsics_normalized is None else torch.from_numpy(frames.intrinsics_normalized)
    if intrinsics is not None and not bool(torch.isfinite(intrinsics).all() and (intrinsics[:, :2] > 0).all()):
        raise ValueError(f"trajectory file {path}: focal lengths must be finite and above 0")
    return path_through(poses, intrinsics, _positions(frames, poses, timing, path), interpolation)


def path_through(
    camera_to_world: Float64[Tensor, "frames 4 4"],
    intrinsics_normalized: Float64[Tensor, "frames 4"] | None,
    times: Float64[np.ndarray, " frames"],
    interpolation: Interpolation = "so3",
) -> CameraPath:
    """Make the path through given cameras, at times that rise from 0, in any unit."""
    last = len(camera_to_world) - 1

    def at(progress: Progress) -> Shot:
        where = torch.from_numpy(np.interp(progress.numpy() * times[-1], times, np.arange(last + 1)))
        own = None
        if intrinsics_normalized is not None:
            lower, upper = where.floor().long(), where.ceil().long()
            own = torch.lerp(intrinsics_normalized[lower], intrinsics_normalized[upper], (where - lower)[:, None])
        between = interpolate_poses if interpolation == "so3" else interpolate_matrices
        return Shot(
            camera_to_world=between(camera_to_world, where), zoom=torch.ones_like(where), intrinsics_normalized=own
        )

    return CameraPath(at=at, frames=last + 1)


def write_path(
    path: Path,
    trajectory: Trajectory,
    intrinsics_normalized: Float64[Tensor, "frames 4"],
    *,
    form: str | None,
    size: tuple[int, int],
    frames_per_second: float,
) -> str:
    """Write a trajectory so that it appears whole or not at all; return the format, which the name tells unless given.

    `intrinsics_normalized` are those of the cameras (`image_clip.normalized_intrinsics`), `size` is the height and
    width of their images. Raises ValueError for a name without a format, and for a zoom that the format cannot hold.
    """
    form = form or format_for(path)
    if form not in WRITTEN:
        raise ValueError(
            f"output={path}: {form or 'the name'} is no format that is written; say which with output_format=, one of "
            f"{', '.join(f'{name} ({FORMATS[name].place})' for name in WRITTEN)}"
        )
    steady = torch.isclose(intrinsics_normalized, intrinsics_normalized[:1], rtol=1e-9, atol=0).all()
    if not FORMATS[form].intrinsics and not bool(steady):
        keep = ", ".join(name for name in WRITTEN if FORMATS[name].intrinsics)
        raise ValueError(
            f"output={path}: the focal length changes along this path and format {form} has none; choose {keep}"
        )
    frames = PosedFrames(
        world_to_camera=trajectory.world_to_camera.numpy(),
        intrinsics_normalized=intrinsics_normalized.numpy(),
        times_seconds=np.arange(len(intrinsics_normalized)) / frames_per_second,
        size=size,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "colmap":
        FORMATS[form].write(path, frames)
        return form
    partial = path.with_name(f".{path.name}.partial")
    try:
        FORMATS[form].write(partial, frames)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return form


def _allowed() -> str:
    return ", ".join(f"{name} ({form.place})" for name, form in FORMATS.items())


def _homogeneous(poses: Float64[np.ndarray, "frames 3 4"]) -> Float64[Tensor, "frames 4 4"]:
    whole = torch.eye(4, dtype=torch.float64).repeat(len(poses), 1, 1)
    whole[:, :3] = torch.from_numpy(poses)
    return whole


def _orthonormal(poses: Float64[Tensor, "frames 4 4"]) -> Float64[Tensor, "frames 4 4"]:
    rotations = poses[:, :3, :3]
    deviation = (rotations @ rotations.mT - torch.eye(3, dtype=torch.float64)).abs().max()
    if deviation > EXACT:
        left, _, right = torch.linalg.svd(rotations)
        poses = poses.clone()
        poses[:, :3, :3] = left @ right
    return poses


def _positions(
    frames: PosedFrames, poses: Float64[Tensor, "frames 4 4"], timing: Timing, path: Path
) -> Float64[np.ndarray, " frames"]:
    """Return when each camera comes, rising from 0."""
    count = len(poses)
    if timing == "frames" or count == 1:
        return np.arange(count, dtype=np.float64)
    if timing == "times":
        times = frames.times_seconds
        if times is None or np.any(np.diff(times) <= 0):
            what = "has no times" if times is None else "has times that do not rise"
            raise ValueError(f"trajectory file {path}: timing=times, but it {what}; choose timing=frames or even")
        return times - times[0]
    turns = torch.linalg.inv(poses[:-1, :3, :3]) @ poses[1:, :3, :3]
    cosine = ((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)
    moved = (poses[1:, :3, 3] - poses[:-1, :3, 3]).norm(dim=1)
    steps = torch.sqrt(moved**2 + torch.arccos(cosine) ** 2)
    # A camera that rests still needs a time of its own.
    travelled = torch.cat([steps.new_zeros(1), (steps + 1e-12).cumsum(0)])
    return travelled.numpy()
