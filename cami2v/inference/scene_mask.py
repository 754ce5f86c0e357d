"""Where a rendered scene may guide the sampling (RealCam-I2V, arXiv 2502.10059): inside what the point cloud covers."""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional

BLACK = 1e-4
"""Largest distance from -1 that counts as black."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneMaskRule:
    """When a latent counts as covered; the published numbers are the defaults.

    A pixel counts where at least `covered_share` of the `window` x `window` pixels around it are rendered, a latent
    where at least `latent_share` of its pixels count, interpolated bilinearly with aligned corners.
    """

    window: int = 5
    covered_share: float = 1.0
    latent_share: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window={self.window}: the scene mask looks around a pixel, use an odd number")
        for key in ("covered_share", "latent_share"):
            if not 0 < getattr(self, key) <= 1:
                raise ValueError(f"{key}={getattr(self, key)}: a share of pixels is above 0 and at most 1")


def scene_mask(
    covered: Bool[Tensor, "batch frames height width"], latent_size: tuple[int, int], rule: SceneMaskRule
) -> Float32[Tensor, "batch 1 frames latent_height latent_width"]:
    """Mark latents whose surroundings are rendered, for all channels alike: 1 there, else 0."""
    kept = box_at_least(covered, window=rule.window, share=rule.covered_share).float()
    shares = functional.interpolate(kept, size=latent_size, mode="bilinear", align_corners=True)
    return rearrange(shares >= rule.latent_share, "b t h w -> b 1 t h w").float()


def not_black(rendered: Float[Tensor, "batch 3 frames height width"]) -> Bool[Tensor, "batch frames height width"]:
    """Tell where frames in [-1, 1] show anything, as published: black pixels of the image itself do not count."""
    return ((rendered + 1).abs() >= BLACK).any(dim=1)


def box_at_least(
    mask: Bool[Tensor, "batch channels height width"], *, window: int, share: float
) -> Bool[Tensor, "batch channels height width"]:
    """Tell where at least `share` of the `window` x `window` entries around each are True, mirrored at the border.

    Raises ValueError for an even window, or one that reaches past the mirrored image.
    """
    reach = window // 2
    if window % 2 == 0 or window < 1 or reach >= min(mask.shape[-2:]):
        raise ValueError(
            f"scene mask: window={window} over {mask.shape[-2]}x{mask.shape[-1]} pixels; use an odd number, less than "
            "twice the shorter side"
        )
    padded = functional.pad(mask.float(), (reach, reach, reach, reach), mode="reflect")
    counts = functional.avg_pool2d(padded, window, stride=1, divisor_override=1)
    return counts >= window**2 * share
