"""A camera path through key-frames: cameras at given times, with motion between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor

from cami2v.geometry.cameras import interpolate_poses
from cami2v.trajectories.trajectory import CameraPath, Progress, Shot

Interpolation = Literal["linear", "smooth"]
"""linear: straight lines and shortest arcs at even speed. smooth: splines without jumps of velocity (cubic ones of
positions and logarithms of zoom; of rotations, one on SO(3) without jumps of angular acceleration)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFrame:
    """Where the camera is at one time."""

    at: float
    """From 0, the path's start, to 1."""
    camera_to_world: Float64[Tensor, "4 4"]
    zoom: float


def through(keys: Sequence[KeyFrame], interpolation: Interpolation) -> CameraPath:
    """Make the path; before the first key-frame and after the last the camera stands still.

    Raises ValueError for fewer than two, times that do not rise from 0 to 1, or a zoom that is not above 0.
    """
    times = [key.at for key in keys]
    if len(keys) < 2:
        raise ValueError(f"{len(keys)} key-frames; give two or more")
    if any(later <= sooner for sooner, later in itertools.pairwise(times)) or times[0] < 0 or times[-1] > 1:
        raise ValueError(f"key-frames at {times}; their times must rise, from 0 at the earliest to 1 at the latest")
    if not all(key.zoom > 0 for key in keys):
        raise ValueError(f"key-frames with zoom {[key.zoom for key in keys]}; choose numbers above 0")
    return _smooth(keys) if interpolation == "smooth" else _linear(keys)


def _linear(keys: Sequence[KeyFrame]) -> CameraPath:
    times = np.array([key.at for key in keys])
    poses = torch.stack([key.camera_to_world for key in keys])
    logarithms = np.log([key.zoom for key in keys])

    def at(progress: Progress) -> Shot:
        positions = np.interp(progress.numpy(), times, np.arange(len(times)))
        zoom = np.exp(np.interp(progress.numpy(), times, logarithms))
        return Shot(camera_to_world=interpolate_poses(poses, torch.from_numpy(positions)), zoom=torch.from_numpy(zoom))

    return CameraPath(at=at, frames=None)


def _smooth(keys: Sequence[KeyFrame]) -> CameraPath:
    times = np.array([key.at for key in keys])
    poses = np.stack([key.camera_to_world.numpy() for key in keys])
    rotations = RotationSpline(times, Rotation.from_matrix(poses[:, :3, :3]))
    moves = CubicSpline(times, poses[:, :3, 3], bc_type="natural")
    logarithms = CubicSpline(times, np.log([key.zoom for key in keys]), bc_type="natural")

    def at(progress: Progress) -> Shot:
        inside = progress.numpy().clip(times[0], times[-1])
        poses = np.tile(np.eye(4), (len(inside), 1, 1))
        poses[:, :3, :3] = rotations(inside).as_matrix()
        poses[:, :3, 3] = moves(inside)
        return Shot(camera_to_world=torch.from_numpy(poses), zoom=torch.from_numpy(np.exp(logarithms(inside))))

    return CameraPath(at=at, frames=None)
