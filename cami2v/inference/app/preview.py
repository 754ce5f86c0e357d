"""What is seen of a path before anything is sampled: the path in space, and the picture moved through its depth."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cami2v.inference.app.settings import PreviewSettings
from cami2v.inference.image_clip import normalized_intrinsics
from cami2v.inference.settings import open_picture
from cami2v.trajectories.preview import facts, preview_size, resized, seen_along
from cami2v.trajectories.scene_page import scene_page
from cami2v.trajectories.trajectory import Trajectory, relative_to

BLANK = (320, 512)
"""Height and width of the picture that is not there yet."""

DepthNetwork = Callable[[Float32[Tensor, "3 height width"]], Float[Tensor, "height width"]]
"""Estimates the depth of an image in [-1, 1], in the unit of the model's translations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is animated."""

    picture: Image.Image
    name: str
    depth: np.ndarray | None = None
    """Scene units, 0 where unknown; None: nobody handed it in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Markup of the page, and where its depth came from."""

    scene: str
    depth_from: str
    facts: list[tuple[str, str]]


class Previews:
    """Draws paths."""

    def __init__(self, settings: PreviewSettings, network: DepthNetwork | None) -> None:
        self.settings = settings
        self.network = network

    def draw(
        self,
        subject: Subject | None,
        cameras: Trajectory,
        *,
        condition_frame: int,
        field_of_view_degrees: float | None,
        wall_distance: float,
    ) -> Preview:
        """Draw a path, and what its cameras see of the picture; `wall_distance` is where it hangs without any depth."""
        seen, depth_from, (height, width) = None, "", BLANK
        if subject is not None:
            image = open_picture(subject.picture)[1]
            height, width = preview_size(image.shape[1], image.shape[2], self.settings.short_side)
            image = resized(image, (height, width))
            depth, depth_from = self._depth(subject, image, wall_distance)
            seen = seen_along(
                image, depth, cameras, condition_frame=condition_frame, field_of_view_degrees=field_of_view_degrees
            )
        relative = relative_to(cameras, condition_frame)
        drawn = Trajectory(
            world_to_camera=relative.world_to_camera,
            intrinsics_normalized=normalized_intrinsics(relative, field_of_view_degrees, height, width),
        )
        page = scene_page(
            drawn, title="camera path", condition_frame=condition_frame, facts=[], seen=seen,
            frames_per_second=self.settings.frames_per_second, embedded=True,
        )  # fmt: skip
        return Preview(scene=_frame(page), depth_from=depth_from, facts=facts(cameras))

    def _depth(
        self, subject: Subject, image: Float32[Tensor, "3 height width"], wall_distance: float
    ) -> tuple[Float32[Tensor, "height width"], str]:
        size = (image.shape[1], image.shape[2])
        if subject.depth is not None:
            known = torch.from_numpy(np.asarray(subject.depth, np.float32))
            # Nearest: depths must not be mixed across edges.
            return functional.interpolate(known[None, None], size=size, mode="nearest-exact")[0, 0], "the depth map"
        if self.network is not None:
            return self.network(image).float(), "the depth network"
        return torch.full(size, wall_distance), f"unknown: the picture hangs on a wall at {wall_distance:g}"


def _frame(page: str) -> str:
    """Wrap a page that comes whole; it may run its own scripts and reach nothing of ours."""
    return (
        f'<iframe class="scene" title="camera path in space, and what the camera sees" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )
