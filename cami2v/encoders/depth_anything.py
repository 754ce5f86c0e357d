"""Depth Anything V2 with a metric head (arXiv 2406.09414): DINOv2's vision transformer and a DPT decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Float32
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from cami2v.encoders.base import DepthEstimator, fixed_initialisation
from cami2v.encoders.dense_prediction import DensePredictionHead

PATCH_SIZE = 14
PRETRAINING_SIZE = 518
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_POSITION_OFFSET = 0.1


class DepthAnythingV2(DepthEstimator):
    """Metric depth up to `max_depth_metres`, a sigmoid of the head's output times that bound.

    `read_blocks` are the transformer blocks, counted from 0, whose tokens the head decodes. Without `weights`
    (safetensors with this module's parameter names) the network is random, drawn from `seed`.
    """

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        layers: int,
        read_blocks: Sequence[int],
        head_width: int,
        head_channels: Sequence[int],
        max_depth_metres: float,
        seed: int = 0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if len(read_blocks) != 4 or len(head_channels) != 4 or sorted(set(read_blocks)) != list(read_blocks):
            raise ValueError(
                f"depth.read_blocks={list(read_blocks)}, depth.head_channels={list(head_channels)}: each has one entry "
                "per level of the head, four in all, blocks in ascending order"
            )
        if not 0 <= read_blocks[0] <= read_blocks[-1] < layers:
            raise ValueError(f"depth.read_blocks={list(read_blocks)}: blocks are counted from 0 to {layers - 1}")
        self.read_blocks = tuple(read_blocks)
        self.max_depth_metres = max_depth_metres
        with fixed_initialisation(seed):
            self.tower = VisionTransformer(
                img_size=PRETRAINING_SIZE,
                patch_size=PATCH_SIZE,
                embed_dim=width,
                depth=layers,
                num_heads=num_heads,
                init_values=1.0,
                num_classes=0,
                dynamic_img_size=True,
            )
            self.head = DensePredictionHead(token_width=width, channels=head_channels, width=head_width)
        if weights is not None:
            self.load_state_dict(load_file(weights))

    def metric_depth(self, images: Float[Tensor, "batch 3 height width"]) -> Float32[Tensor, "batch height width"]:
        """Estimate depth along the optical axis, in metres, for images in [-1, 1].

        The network sees the image at the nearest multiples of its patch size; its depth is resized back. Raises
        ValueError for images that round to no patch.
        """
        height, width = images.shape[-2:]
        network_size = (nearest_multiple(height), nearest_multiple(width))
        if 0 in network_size:
            raise ValueError(
                f"depth network got images of {height}x{width} pixels; each side needs more than {PATCH_SIZE // 2}"
            )
        pixels = _resize(images.float(), network_size)
        mean = images.new_tensor(IMAGENET_MEAN, dtype=torch.float32).view(3, 1, 1)
        std = images.new_tensor(IMAGENET_STD, dtype=torch.float32).view(3, 1, 1)
        with torch.no_grad():
            depth = self(((pixels + 1) / 2 - mean) / std)
        return _resize(depth[:, None], (height, width))[:, 0]

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float32[Tensor, "batch height width"]:
        """Estimate depth in metres; `pixels` have ImageNet's statistics and sides that are multiples of 14."""
        height, width = pixels.shape[-2:]
        rows, columns = height // PATCH_SIZE, width // PATCH_SIZE
        levels = self.read_tokens(pixels.to(next(self.parameters()).dtype))
        maps = [rearrange(tokens, "b (h w) c -> b c h w", h=rows, w=columns) for tokens in levels]
        return self.head(maps, (height, width))[:, 0].float().sigmoid() * self.max_depth_metres

    def read_tokens(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch tokens channels"]]:
        """Return the final-normed patch tokens after each of `read_blocks`."""
        patches = self.tower.patch_embed(pixels)
        class_token, positions = self.tower.cls_token, self.tower.pos_embed
        assert class_token is not None
        assert positions is not None
        tokens = torch.cat([class_token.expand(len(patches), -1, -1), patches.flatten(1, 2)], dim=1)
        tokens = tokens + _resampled(positions, *patches.shape[1:3])
        levels = []
        for index, block in enumerate(self.tower.blocks):
            tokens = block(tokens)
            if index in self.read_blocks:
                levels.append(self.tower.norm(tokens)[:, 1:])
        return levels


def nearest_multiple(size: int, of: int = PATCH_SIZE) -> int:
    """Round to the nearest multiple, a tie to the even one; 0 where the size is less than half of `of`."""
    return round(size / of) * of


def _resampled(positions: Float[Tensor, "1 _ channels"], rows: int, columns: int) -> Float[Tensor, "1 _ channels"]:
    """Resample the position embedding as DINOv2 does.

    It passes scale factors, enlarged by an offset, which shifts the sampling points; timm passes sizes.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if (rows, columns) == (side, side):
        return positions
    grid = rearrange(positions[:, 1:], "b (h w) c -> b c h w", h=side).float()
    factors = ((rows + _POSITION_OFFSET) / side, (columns + _POSITION_OFFSET) / side)
    grid = functional.interpolate(grid, scale_factor=factors, mode="bicubic")
    resampled = rearrange(grid, "b c h w -> b (h w) c").to(positions.dtype)
    return torch.cat([positions[:, :1], resampled], dim=1)


def _resize(
    images: Float32[Tensor, "batch channels _ _"], size: tuple[int, int]
) -> Float32[Tensor, "batch channels _ _"]:
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=True)
