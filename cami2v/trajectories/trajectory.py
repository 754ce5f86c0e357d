"""A camera path as numbers: what is sampled along, and what it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from cami2v.geometry.cameras import as_homogeneous, invert_pose, relative_poses

Progress = Float64[Tensor, " frames"]
"""How far along a path: 0 at its start, 1 at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A camera for every frame of a video. At most one of intrinsics and zoom is known."""

    world_to_camera: Float64[Tensor, "frames 3 4"]
    intrinsics_normalized: Float64[Tensor, "frames 4"] | None
    """fx fy cx cy divided by image width and height; None: those of the image that is animated."""
    zoom: Float64[Tensor, " frames"] | None = None
    """Factor on the focal lengths of that image; None: they stay."""

    def camera_to_world(self) -> Float64[Tensor, "frames 4 4"]:
        """Return the poses the other way round."""
        return invert_pose(as_homogeneous(self.world_to_camera))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Cameras along a path, while it is being made."""

    camera_to_world: Float64[Tensor, "frames 4 4"]
    zoom: Float64[Tensor, " frames"]
    intrinsics_normalized: Float64[Tensor, "frames 4"] | None = None
    """Before the zoom."""

    def trajectory(self) -> Trajectory:
        """Return the cameras as they are sampled along."""
        poses = invert_pose(self.camera_to_world)[:, :3]
        if self.intrinsics_normalized is None:
            zoom = None if bool((self.zoom == 1).all()) else self.zoom
            return Trajectory(world_to_camera=poses, intrinsics_normalized=None, zoom=zoom)
        return Trajectory(world_to_camera=poses, intrinsics_normalized=zoomed(self.intrinsics_normalized, self.zoom))


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPath:
    """A path that can be asked for its camera anywhere."""

    at: Callable[[Progress], Shot]
    frames: int | None
    """How many cameras it was given by; None for a formula."""

    def sample(self, frames: int) -> Trajectory:
        """Spread cameras evenly over the path, both ends included. Raises ValueError for none."""
        if frames < 1:
            raise ValueError(f"frames={frames}: a camera path needs 1 or more")
        return self.at(torch.linspace(0, 1, frames, dtype=torch.float64)).trajectory()


def zoomed(intrinsics: Float64[Tensor, "frames 4"], zoom: Float64[Tensor, " frames"]) -> Float64[Tensor, "frames 4"]:
    """Multiply the focal lengths."""
    return torch.cat([intrinsics[:, :2] * zoom[:, None], intrinsics[:, 2:]], dim=1)


def relative_to(trajectory: Trajectory, frame: int) -> Trajectory:
    """Take a frame's camera for the world: its pose becomes the identity and its zoom 1. Mirrored paths become proper.

    Raises ValueError for a frame that the path does not have.
    """
    count = len(trajectory.world_to_camera)
    if not 0 <= frame < count:
        raise ValueError(f"condition_frame={frame}: the path has frames 0 to {count - 1}")
    to_frame = relative_poses(trajectory.world_to_camera[None], torch.tensor([frame]))[0]
    zoom = None if trajectory.zoom is None else trajectory.zoom / trajectory.zoom[frame]
    return Trajectory(
        world_to_camera=invert_pose(to_frame)[:, :3],
        intrinsics_normalized=trajectory.intrinsics_normalized,
        zoom=zoom,
    )


def scaled(trajectory: Trajectory, factor: float) -> Trajectory:
    """Multiply all translations."""
    poses = trajectory.world_to_camera.clone()
    poses[..., 3] *= factor
    return Trajectory(
        world_to_camera=poses, intrinsics_normalized=trajectory.intrinsics_normalized, zoom=trajectory.zoom
    )
