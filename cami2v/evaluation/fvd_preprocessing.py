"""How videos become a detector's input: the Frechet video distance's conventions in the literature.

The distance depends on them. Numbers of different conventions, or of different detectors, are not comparable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional

DETECTOR_SIZE = 224

Videos = UInt8[Tensor, "batch 3 frames height width"]
Pixels = Float32[Tensor, "batch 3 frames _ _"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """Frames are squashed, or resized and centre-cropped, to a square of `size`, then resized to the detector's 224.

    All resizing is bilinear, without antialiasing and with pixel centres at half integers.
    """

    size: int
    keep_aspect: bool
    """Resize the shorter side to `size`, the other in proportion and rounded up, and crop; otherwise squash."""

    def __str__(self) -> str:
        """Say it in a table."""
        how = "shorter side, centre crop" if self.keep_aspect else "squash"
        return f"{how} {self.size}x{self.size}" + ("" if self.size == DETECTOR_SIZE else f" -> {DETECTOR_SIZE}")


CONVENTIONS = {
    # VideoGPT's detector as CamI2V's published table runs it: the aspect is not kept.
    "videogpt_squash": Convention(size=224, keep_aspect=False),
    # VideoGPT's detector in the package common_metrics_on_video_quality.
    "videogpt_crop": Convention(size=224, keep_aspect=True),
    # StyleGAN-V's detector as CamI2V's published table runs it: 128 pixels, enlarged.
    "styleganv_128": Convention(size=128, keep_aspect=True),
    # StyleGAN-V's detector in common_metrics_on_video_quality.
    "styleganv_224": Convention(size=224, keep_aspect=True),
}


def convention(name: str) -> Convention:
    """Look a convention up. Raises ValueError for an unknown name."""
    if name not in CONVENTIONS:
        raise ValueError(f"FVD convention {name!r} is unknown; choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def preprocess(videos: Videos, name: str) -> Float32[Tensor, "batch 3 frames 224 224"]:
    """Bring videos to a detector's size, values in [-1, 1]. Raises ValueError for an unknown convention."""
    square = to_square(videos, convention(name))
    return square if square.shape[-1] == DETECTOR_SIZE else _resize(square, (DETECTOR_SIZE, DETECTOR_SIZE))


def to_square(videos: Videos, rule: Convention) -> Pixels:
    """Squash or resize and crop to `rule.size`, values in [-1, 1]."""
    values = videos.float()
    if not rule.keep_aspect:
        return _resize(values, (rule.size, rule.size)) * 2 / 255 - 1
    height, width = videos.shape[-2:]
    factor = rule.size / min(height, width)
    rows = rule.size if height < width else math.ceil(height * factor)
    columns = math.ceil(width * factor) if height < width else rule.size
    top, left = (rows - rule.size) // 2, (columns - rule.size) // 2
    resized = _resize(values, (rows, columns))
    return resized[..., top : top + rule.size, left : left + rule.size] * 2 / 255 - 1


def middle_frames(length: int, count: int, *, compatibility: Literal["published"] | None = None) -> list[int]:
    """Choose `count` consecutive frames from the middle of `length`.

    `compatibility="published"` starts one frame before the middle, as the published sampler does, so that its indices
    run past the end of videos shorter than twice `count`. Raises ValueError where there are too few frames.
    """
    if not 1 <= count <= length:
        raise ValueError(f"{count} frames asked of a video of {length}; ask for 1 to {length}")
    start = length // 2 - 1 if compatibility == "published" else (length - count) // 2
    return list(range(start, start + count))


def _resize(videos: Pixels, size: tuple[int, int]) -> Pixels:
    frames = rearrange(videos, "b c t h w -> (b t) c h w")
    resized = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    return rearrange(resized, "(b t) c h w -> b c t h w", b=len(videos))
