"""Dropping of text and image conditions during training, for classifier-free guidance (arXiv 2207.12598)."""

from __future__ import annotations

from jaxtyping import Bool, Float32
from torch import Tensor


def drop_masks(
    uniform: Float32[Tensor, " batch"], probability: float
) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Decide from one uniform number per sample whether its text and its image embedding are dropped.

    Text alone, both, and image alone are dropped with `probability` each (InstructPix2Pix, arXiv 2211.09800, section
    3.2.1). The conditioning latents and the cameras are never dropped.
    """
    drop_text = uniform < 2 * probability
    drop_image = (uniform >= probability) & (uniform < 3 * probability)
    return drop_text, drop_image
