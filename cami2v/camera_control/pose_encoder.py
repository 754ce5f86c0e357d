"""Encoder of Pluecker maps into one feature map per backbone level (CameraCtrl, arXiv 2404.02101, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cami2v.attention.self_attention import SelfAttention
from cami2v.backbones.feed_forward import FeedForward
from cami2v.camera_control.pyramid import Pyramid

PLUECKER_CHANNELS = 6


def sinusoidal_positions(length: int, width: int) -> Float[Tensor, "length width"]:
    """Tabulate sines on even and cosines on odd channels, base 10000."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    table = torch.empty(length, width)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


class PoseResidualBlock(nn.Module):
    """Two convolutions without norms; resampling and widening happen before the skip branches off."""

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        kernel_size: int,
        downsample: bool,
        strided_downsample: bool,
        skip_convolution: bool,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.downsample: nn.Module | None = None
        if downsample and strided_downsample:
            self.downsample = nn.Conv2d(in_channels, in_channels, kernel_size=3, stride=2, padding=1)
        elif downsample:
            self.downsample = nn.AvgPool2d(kernel_size=2)
        self.widen = (
            nn.Conv2d(in_channels, channels, kernel_size, padding=padding)
            if in_channels != channels or skip_convolution
            else None
        )
        self.convolution1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.convolution2 = nn.Conv2d(channels, channels, kernel_size, padding=padding)
        self.skip = nn.Conv2d(channels, channels, kernel_size, padding=padding) if skip_convolution else nn.Identity()

    def forward(self, hidden: Float[Tensor, "n in_channels in_height in_width"]) -> Float[Tensor, "n channels h w"]:
        """Transform each frame."""
        if self.downsample is not None:
            hidden = self.downsample(hidden)
        if self.widen is not None:
            hidden = self.widen(hidden)
        residual = self.convolution2(functional.relu(self.convolution1(hidden)))
        return residual + self.skip(hidden)


class PoseTemporalBlock(nn.Module):
    """Pre-norm transformer block over frames; query, key and value all carry the frame's position."""

    positions: Tensor

    def __init__(self, *, width: int, num_heads: int, max_frames: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width=width, num_heads=num_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width=width)
        self.register_buffer("positions", sinusoidal_positions(max_frames, width), persistent=False)

    def forward(self, hidden: Float[Tensor, "positions frames width"]) -> Float[Tensor, "positions frames width"]:
        """Mix frames of each pixel."""
        normed = self.norm(hidden)
        placed = normed + self.positions[: hidden.shape[1]].to(normed.dtype)
        hidden = self.self_attention(placed) + hidden
        return self.feed_forward(self.feed_forward_norm(hidden)) + hidden


class PoseLevel(nn.Module):
    """Residual and temporal blocks in alternation at one resolution; only the last block has the full width."""

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        blocks: int,
        num_heads: int,
        max_frames: int,
        kernel_size: int,
        compression: int,
        downsample: bool,
        strided_downsample: bool,
        skip_convolution: bool,
    ) -> None:
        super().__init__()
        widths = [width // compression] * (blocks - 1) + [width]
        self.residual_blocks = nn.ModuleList(
            PoseResidualBlock(
                in_channels=before,
                channels=after,
                kernel_size=kernel_size,
                downsample=downsample and block == 0,
                strided_downsample=strided_downsample,
                skip_convolution=skip_convolution,
            )
            for block, (before, after) in enumerate(pairwise([in_channels, *widths]))
        )
        self.temporal_blocks = nn.ModuleList(
            PoseTemporalBlock(width=channels, num_heads=num_heads, max_frames=max_frames) for channels in widths
        )

    def forward(
        self, hidden: Float[Tensor, "batch_frames in_channels in_height in_width"], frames: int
    ) -> Float[Tensor, "batch_frames width height width_pixels"]:
        """Transform each frame, then mix frames, block by block."""
        for residual, temporal in zip(self.residual_blocks, self.temporal_blocks, strict=True):
            hidden = residual(hidden)
            height, width = hidden.shape[2:]
            tokens = temporal(rearrange(hidden, "(b f) c h w -> (b h w) f c", f=frames))
            hidden = rearrange(tokens, "(b h w) f c -> (b f) c h w", h=height, w=width)
        return hidden


class PoseEncoder(nn.Module):
    """Turn Pluecker maps into pose features for latent downsamples 1, 2, 4, ...

    `downscale` is the first stage's factor between pixels and latents; `widths` must equal the backbone's width at each
    level. The released encoders use `kernel_size` 1, no `compression`, pooling and plain skips.
    """

    def __init__(
        self,
        *,
        downscale: int,
        widths: Sequence[int],
        residual_blocks: int,
        num_heads: int,
        max_frames: int,
        kernel_size: int = 1,
        compression: int = 1,
        strided_downsample: bool = False,
        skip_convolution: bool = False,
    ) -> None:
        super().__init__()
        self.max_frames = max_frames
        self.downscale = downscale
        self.input_convolution = nn.Conv2d(PLUECKER_CHANNELS * downscale**2, widths[0], kernel_size=3, padding=1)
        self.levels = nn.ModuleList(
            PoseLevel(
                in_channels=widths[max(level - 1, 0)],
                width=width,
                blocks=residual_blocks,
                num_heads=num_heads,
                max_frames=max_frames,
                kernel_size=kernel_size,
                compression=compression,
                downsample=level > 0,
                strided_downsample=strided_downsample,
                skip_convolution=skip_convolution,
            )
            for level, width in enumerate(widths)
        )

    def encode(self, pluecker: Float[Tensor, "batch 6 frames height width"]) -> Pyramid:
        """Return the features of `forward` by latent downsample."""
        return Pyramid(levels={2**index: level for index, level in enumerate(self(pluecker))})

    def forward(self, pluecker: Float[Tensor, "batch 6 frames height width"]) -> tuple[Tensor, ...]:
        """Return features per level, laid out as "batch height width frames channels", the order of temporal tokens.

        A tuple, because ZeRO-3 has to see the tensors that a module returns. Raises ValueError for more frames than
        position codes and for sizes that `downscale` does not divide.
        """
        _, _, frames, height, width = pluecker.shape
        self._check_input(frames, height, width)
        hidden = rearrange(pluecker, "b c f h w -> (b f) c h w").to(self.input_convolution.weight.dtype)
        hidden = self.input_convolution(functional.pixel_unshuffle(hidden, self.downscale))
        features = []
        for level in self.levels:
            hidden = level(hidden, frames)
            # Contiguous here once, so that no block has to copy it into its token order.
            features.append(rearrange(hidden, "(b f) c h w -> b h w f c", f=frames).contiguous())
        return tuple(features)

    def _check_input(self, frames: int, height: int, width: int) -> None:
        if frames > self.max_frames:
            raise ValueError(
                f"cameras: got {frames} frames, the pose encoder takes at most {self.max_frames} "
                "(camera.pose_encoder.max_frames)"
            )
        if height % self.downscale or width % self.downscale:
            raise ValueError(
                f"cameras: got a {height}x{width} image, height and width must be multiples of {self.downscale} "
                "(camera.pose_encoder.downscale); change data.resolution"
            )
