"""OpenCLIP's image tower, all tokens before the final norm and projection (arXiv 2212.07143)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Float32
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cami2v.encoders.base import ImageEncoder, fixed_initialisation
from cami2v.encoders.late_import import imported

IMAGE_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class OpenCLIPImageEncoder(ImageEncoder):
    """Encode images to the class token followed by all patch tokens.

    Without `weights` (safetensors with this module's parameter names) the tower is random, drawn from `seed`.
    """

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        layers: int,
        patch_size: int,
        seed: int = 0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        open_clip = imported("open_clip")
        with fixed_initialisation(seed):
            self.tower = open_clip.transformer.VisionTransformer(
                image_size=IMAGE_SIZE,
                patch_size=patch_size,
                width=width,
                layers=layers,
                heads=num_heads,
                mlp_ratio=4.0,
                output_tokens=True,
            )
        # Head of the contrastive model; its parameters would only be dead weight here.
        self.tower.ln_post = nn.Identity()
        self.tower.proj = None
        if weights is not None:
            self.load_state_dict(load_file(weights))

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens channels"]:
        """Encode images in [-1, 1]; any aspect ratio is squashed to a square."""
        pixels = preprocess(images).to(self.tower.conv1.weight.dtype)
        with torch.no_grad():
            class_token, patch_tokens = self.tower(pixels)
        return torch.cat([class_token[:, None], patch_tokens], dim=1)


def preprocess(images: Float[Tensor, "batch 3 height width"]) -> Float32[Tensor, "batch 3 224 224"]:
    """Blur against aliasing, resize to 224x224 and normalise to CLIP's statistics, in float32."""
    images = images.float()
    factors = (images.shape[-2] / IMAGE_SIZE, images.shape[-1] / IMAGE_SIZE)
    if max(factors) > 1:
        images = _blur(images, factors)
    images = functional.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)
    mean = images.new_tensor(CLIP_MEAN).view(3, 1, 1)
    std = images.new_tensor(CLIP_STD).view(3, 1, 1)
    return ((images + 1) / 2 - mean) / std


def _blur(
    images: Float32[Tensor, "batch 3 height width"], factors: tuple[float, float]
) -> Float32[Tensor, "batch 3 height width"]:
    """Blur along each axis with the Gaussian that suits its downscaling factor, reflecting at the border."""
    rows, columns = (_gaussian(factor, images.device) for factor in factors)
    padding = (len(columns) // 2, len(columns) // 2, len(rows) // 2, len(rows) // 2)
    padded = functional.pad(images, padding, mode="reflect")
    kernels = images.shape[1]
    vertical = functional.conv2d(padded, rows.view(1, 1, -1, 1).expand(kernels, 1, -1, 1), groups=kernels)
    return functional.conv2d(vertical, columns.view(1, 1, 1, -1).expand(kernels, 1, 1, -1), groups=kernels)


def _gaussian(factor: float, device: torch.device) -> Float32[Tensor, " taps"]:
    sigma = max((factor - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3))
    taps += 1 - taps % 2
    offsets = torch.arange(taps, dtype=torch.float32, device=device) - taps // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()
