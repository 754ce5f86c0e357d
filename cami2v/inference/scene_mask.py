"""Where a rendered scene may guide the sampling (RealCam-I2V, arXiv 2502.10059): inside what the point cloud covers."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional

BLACK = 1e-4
"""Largest distance from -1 that counts as black."""


def scene_mask(
    rendered: Float[Tensor, "batch 3 frames height width"],
    latent_size: tuple[int, int],
    *,
    window: int,
    covered_share: float,
    latent_share: float,
) -> Float32[Tensor, "batch 1 frames latent_height latent_width"]:
    """Mark latents whose surroundings are rendered: 1 there, else 0.

    `rendered` is in [-1, 1], black (-1 in all channels) where no point falls. A pixel counts where at least
    `covered_share` of the `window` x `window` pixels around it are rendered, a latent where at least `latent_share` of
    its pixels count, interpolated bilinearly with aligned corners. Published: 5, 1.0 and 0.9, for all channels alike.
    """
    covered = ((rendered + 1).abs() >= BLACK).any(dim=1)
    kept = box_at_least(covered, window=window, share=covered_share).float()
    shares = functional.interpolate(kept, size=latent_size, mode="bilinear", align_corners=True)
    return rearrange(shares >= latent_share, "b t h w -> b 1 t h w").float()


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
