"""Bring images to a model's resolution: resize to cover it, crop the centre; intrinsics move with the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cami2v.geometry.cameras import crop_intrinsics, intrinsics_in_pixels

PrincipalPoint = Literal["cropped", "published"]
"""`cropped`: the crop moves it, as it must. `published`: cx, cy times the cropped size, as the published training code
has it; the same to half a pixel where it is the image's centre (RealEstate10K)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """Resize to `resized`, then cut `height` x `width` out, first row `top`, first column `left`."""

    resized: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


def framing_for(height: int, width: int, target: tuple[int, int], pixel_aspect: float = 1.0) -> Framing:
    """Choose the framing of a `height` x `width` image whose pixels are `pixel_aspect` times as wide as high.

    DynamiCrafter's rule: the shorter side relative to the target fits exactly, the other is truncated to whole pixels.
    """
    display_width = round(width * pixel_aspect)
    target_height, target_width = target
    if display_width / height > target_width / target_height:
        resized = (target_height, int(display_width * target_height / height))
    else:
        resized = (int(height * target_width / display_width), target_width)
    return Framing(
        resized=resized,
        top=(resized[0] - target_height) // 2,
        left=(resized[1] - target_width) // 2,
        height=target_height,
        width=target_width,
    )


def frame_images(
    images: Float[Tensor, "batch channels old_height old_width"], framing: Framing
) -> Float[Tensor, "batch channels height width"]:
    """Resize (bilinear, antialiased, one resampling) and crop."""
    resized = torch.nn.functional.interpolate(
        images, size=framing.resized, mode="bilinear", align_corners=False, antialias=True
    )
    bottom, right = framing.top + framing.height, framing.left + framing.width
    return resized[..., framing.top : bottom, framing.left : right].contiguous()


def frame_intrinsics(
    intrinsics_normalized: Float[Tensor, "*batch 4"], framing: Framing, principal_point: PrincipalPoint = "cropped"
) -> Float[Tensor, "*batch 4"]:
    """Return fx fy cx cy in pixels of the framed image from those divided by the size of the original."""
    pixels = intrinsics_in_pixels(intrinsics_normalized, *framing.resized)
    if principal_point == "cropped":
        return crop_intrinsics(pixels, framing.top, framing.left)
    size = pixels.new_tensor([framing.width, framing.height])
    return torch.cat([pixels[..., :2], intrinsics_normalized[..., 2:] * size], dim=-1)
