"""Look at a path before sampling along it: what it does in numbers, and what its cameras see of the image."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn import functional

from cami2v.geometry.cameras import intrinsics_in_pixels
from cami2v.inference.clip_video import to_frames
from cami2v.inference.image_clip import normalized_intrinsics
from cami2v.trajectories.scene_page import SeenImage
from cami2v.trajectories.trajectory import Trajectory, relative_to
from cami2v.trajectories.warp import Warped, cloud, warp

MOST_POINTS = 20_000
"""Of the image, in a page."""


def warp_along(
    image: Float32[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    trajectory: Trajectory,
    *,
    condition_frame: int,
    field_of_view_degrees: float | None,
) -> Warped:
    """Draw the image as the cameras of a path see it; it is that of the condition frame, uncropped.

    The angle is that along the image's width; None: what the trajectory says, else 90 degrees along the longer side.
    """
    path = relative_to(trajectory, condition_frame)
    intrinsics = _pixels(image, path, field_of_view_degrees)
    return warp(image, depth, path.camera_to_world(), intrinsics, intrinsics[condition_frame])


def seen_along(
    image: Float32[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    trajectory: Trajectory,
    *,
    condition_frame: int,
    field_of_view_degrees: float | None,
) -> SeenImage:
    """Gather what the page of a path shows of an image."""
    warped = warp_along(
        image, depth, trajectory, condition_frame=condition_frame, field_of_view_degrees=field_of_view_degrees
    )
    own = _pixels(image, relative_to(trajectory, condition_frame), field_of_view_degrees)[condition_frame]
    points, colours = cloud(image, depth, own, most=MOST_POINTS)
    return SeenImage(points=points, colours=colours, video=to_frames(warped.video))


def preview_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return even sides of about the same shape, the shorter one `short_side` at most."""
    factor = min(1.0, short_side / min(height, width))
    return 2 * max(1, round(height * factor / 2)), 2 * max(1, round(width * factor / 2))


def resized(
    image: Float32[Tensor, "3 old_height old_width"], size: tuple[int, int]
) -> Float32[Tensor, "3 height width"]:
    """Bring an image to a size."""
    return functional.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]


def facts(trajectory: Trajectory) -> list[tuple[str, str]]:
    """Say in a few words what a path does."""
    poses = relative_to(trajectory, 0).camera_to_world()
    centres = poses[:, :3, 3]
    turned = _angles(poses[:1, :3, :3], poses[:, :3, :3])
    rows = [
        ("frames", str(len(poses))),
        ("moved", f"{centres.diff(dim=0).norm(dim=1).sum():.4g} along the path"),
        ("ends at", f"x {centres[-1, 0]:.4g}, y {centres[-1, 1]:.4g}, z {centres[-1, 2]:.4g} (right, down, ahead)"),
        ("farthest", f"{centres.norm(dim=1).max():.4g} from the first camera"),
        ("turned", f"{math.degrees(turned[-1]):.4g} degrees at the end, {math.degrees(turned.max()):.4g} at most"),
        ("focal length", _focal(trajectory)),
    ]
    if bool((torch.linalg.det(trajectory.world_to_camera[:, :, :3]) < 0).any()):
        rows.append(("mirrored", "determinant -1; it cancels in relative poses"))
    return rows


def _focal(trajectory: Trajectory) -> str:
    if trajectory.intrinsics_normalized is None:
        zoom = trajectory.zoom
        return "the image's" if zoom is None else f"the image's times {zoom.min():.4g} to {zoom.max():.4g}"
    low, high = trajectory.intrinsics_normalized[:, 0].min(), trajectory.intrinsics_normalized[:, 0].max()
    angle = math.degrees(2 * math.atan(0.5 / float(low)))
    spread = "" if torch.isclose(low, high) else f" to {high:.4g}"
    return f"{low:.4g}{spread} of the width ({angle:.3g} degrees)"


def _angles(first: Float64[Tensor, "1 3 3"], others: Float64[Tensor, "frames 3 3"]) -> Float64[Tensor, " frames"]:
    turns = first.mT @ others
    # Of the angle's sine and cosine: exact for small and for half turns.
    skew = torch.stack(
        [turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0], turns[:, 1, 0] - turns[:, 0, 1]], dim=-1
    )
    return torch.atan2(skew.norm(dim=-1), turns.diagonal(dim1=1, dim2=2).sum(-1) - 1)


def _pixels(
    image: Float32[Tensor, "3 height width"], path: Trajectory, field_of_view_degrees: float | None
) -> Float64[Tensor, "frames 4"]:
    height, width = image.shape[1:]
    return intrinsics_in_pixels(normalized_intrinsics(path, field_of_view_degrees, height, width), height, width)
