"""Perceiver resampler from image-encoder tokens to the U-Net's image context (IP-Adapter, arXiv 2308.06721)."""

from __future__ import annotations

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cami2v.attention.core import AttentionCore


class ResamplerAttention(nn.Module):
    """Attention from the latents to the image tokens and to the latents themselves."""

    def __init__(self, *, width: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        inner_width = num_heads * head_width
        self.attention = AttentionCore(num_heads=num_heads)
        self.norm_tokens = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, inner_width, bias=False)
        self.to_key_and_value = nn.Linear(width, 2 * inner_width, bias=False)
        self.to_output = nn.Linear(inner_width, width, bias=False)

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], latents: Float[Tensor, "batch latents width"]
    ) -> Float[Tensor, "batch latents width"]:
        """Read the tokens into the latents."""
        tokens, latents = self.norm_tokens(tokens), self.norm_latents(latents)
        key, value = self.to_key_and_value(torch.cat([tokens, latents], dim=1)).chunk(2, dim=-1)
        return self.to_output(self.attention(self.to_query(latents), key, value))


class ResamplerFeedForward(nn.Module):
    """Norm, expand, GELU, contract; no biases."""

    def __init__(self, *, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width, bias=False)
        self.contract = nn.Linear(expansion * width, width, bias=False)

    def forward(self, latents: Float[Tensor, "batch latents width"]) -> Float[Tensor, "batch latents width"]:
        """Transform each latent by itself."""
        return self.contract(functional.gelu(self.expand(self.norm(latents))))


class ResamplerLayer(nn.Module):
    """Attention and feed-forward, each added to the latents."""

    def __init__(self, *, width: int, num_heads: int, head_width: int, expansion: int) -> None:
        super().__init__()
        self.attention = ResamplerAttention(width=width, num_heads=num_heads, head_width=head_width)
        self.feed_forward = ResamplerFeedForward(width=width, expansion=expansion)

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], latents: Float[Tensor, "batch latents width"]
    ) -> Float[Tensor, "batch latents width"]:
        """Refine the latents."""
        latents = self.attention(tokens, latents) + latents
        return self.feed_forward(latents) + latents


class Resampler(nn.Module):
    """Turn one image's tokens into `queries_per_frame` context tokens for every frame (arXiv 2310.12190)."""

    def __init__(
        self,
        *,
        input_width: int,
        width: int,
        output_width: int,
        depth: int,
        num_heads: int,
        head_width: int,
        queries_per_frame: int,
        frames: int,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        self.queries_per_frame = queries_per_frame
        self.frames = frames
        self.latents = nn.Parameter(torch.randn(1, frames * queries_per_frame, width) / width**0.5)
        self.project_in = nn.Linear(input_width, width)
        self.layers = nn.ModuleList(
            ResamplerLayer(width=width, num_heads=num_heads, head_width=head_width, expansion=expansion)
            for _ in range(depth)
        )
        self.project_out = nn.Linear(width, output_width)
        self.norm_out = nn.LayerNorm(output_width)

    def forward(
        self, tokens: Float[Tensor, "batch tokens input_width"], frames: int
    ) -> Float[Tensor, "batch frame_queries output_width"]:
        """Resample to frame-major groups of tokens for the first `frames` frames.

        Raises ValueError for more frames than there are learned queries for.
        """
        if frames > self.frames:
            raise ValueError(
                f"image projector: got {frames} frames, it has queries for {self.frames} (image_projector.frames); "
                "use fewer frames"
            )
        tokens = self.project_in(tokens.to(self.project_in.weight.dtype))
        latents = self.latents[:, : frames * self.queries_per_frame].to(tokens.dtype)
        latents = repeat(latents, "1 n c -> b n c", b=tokens.shape[0])
        for layer in self.layers:
            latents = layer(tokens, latents)
        return self.norm_out(self.project_out(latents))
