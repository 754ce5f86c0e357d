"""Spatial and temporal transformers of the DynamiCrafter U-Net (arXiv 2310.12190)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cami2v.attention.core import AttentionCore
from cami2v.attention.self_attention import SelfAttention
from cami2v.backbones.dynamicrafter.context import BlockContext
from cami2v.backbones.dynamicrafter.layers import Float32GroupNorm, PointwiseConv1d
from cami2v.backbones.feed_forward import FeedForward
from cami2v.backbones.initialisation import zero_initialised
from cami2v.camera_control.base import BlockSite, CameraAdapter

TRANSFORMER_NORM_EPSILON = 1e-6


class TextImageCrossAttention(nn.Module):
    """Cross-attention to the caption and, with a softmax of its own, to the conditioning image's tokens."""

    def __init__(self, *, width: int, num_heads: int, context_width: int, learnable_image_scale: bool) -> None:
        super().__init__()
        self.attention = AttentionCore(num_heads=num_heads)
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_text_key = nn.Linear(context_width, width, bias=False)
        self.to_text_value = nn.Linear(context_width, width, bias=False)
        self.to_image_key = nn.Linear(context_width, width, bias=False)
        self.to_image_value = nn.Linear(context_width, width, bias=False)
        self.to_output = nn.Linear(width, width)
        self.image_scale = nn.Parameter(torch.zeros(())) if learnable_image_scale else None

    def forward(
        self, tokens: Float[Tensor, "batch_frames tokens width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames tokens width"]:
        """Attend from every frame to its clip's text and to the frame's own image tokens."""
        query = self.to_query(tokens)
        text_key, text_value = self.to_text_key(context.text_tokens), self.to_text_value(context.text_tokens)
        # A clip's frames share the text: they are one long row of queries, so text keys are not repeated per frame.
        clip_query = rearrange(query, "(b f) n c -> b (f n) c", f=context.frames)
        attended = self.attention(clip_query, text_key, text_value)
        attended = rearrange(attended, "b (f n) c -> (b f) n c", f=context.frames)
        image_key, image_value = self.to_image_key(context.image_tokens), self.to_image_value(context.image_tokens)
        to_image = self.attention(query, image_key, image_value)
        if self.image_scale is not None:
            to_image = to_image * (torch.tanh(self.image_scale) + 1)
        return self.to_output(attended + to_image)


class SpatialBlock(nn.Module):
    """Pre-norm transformer block over the pixels of one frame."""

    def __init__(self, *, width: int, num_heads: int, context_width: int, learnable_image_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width=width, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = TextImageCrossAttention(
            width=width,
            num_heads=num_heads,
            context_width=context_width,
            learnable_image_scale=learnable_image_scale,
        )
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width=width)

    def forward(
        self, hidden: Float[Tensor, "batch_frames tokens width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames tokens width"]:
        """Mix pixels, read text and image, transform."""
        hidden = self.self_attention(self.norm1(hidden)) + hidden
        hidden = self.cross_attention(self.norm2(hidden), context) + hidden
        return self.feed_forward(self.norm3(hidden)) + hidden


class TemporalBlock(nn.Module):
    """Pre-norm transformer block over the frames of one pixel; the site that camera control plugs into."""

    def __init__(self, *, width: int, num_heads: int, camera: CameraAdapter | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width=width, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.second_self_attention = SelfAttention(width=width, num_heads=num_heads)
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width=width)
        self.camera = camera

    def forward(
        self, hidden: Float[Tensor, "positions frames width"], context: BlockContext, height: int, width: int
    ) -> Float[Tensor, "positions frames width"]:
        """Mix frames twice and transform, with the camera acting around the first attention."""
        normed, beside = self.norm1(hidden), None
        grid = context.grid(height, width)
        if self.camera is not None and context.camera is not None:
            normed, beside = self.camera.before_self_attention(normed, context.camera, grid)
        attended = self.self_attention(normed)
        hidden = attended + hidden if beside is None else beside + attended + hidden
        if self.camera is not None and context.camera is not None:
            hidden = self.camera.after_self_attention(hidden, context.camera, grid)
        hidden = self.second_self_attention(self.norm2(hidden)) + hidden
        return self.feed_forward(self.norm3(hidden)) + hidden


class SpatialTransformer(nn.Module):
    """Transformer over the pixels of each frame, added to its input."""

    def __init__(
        self,
        *,
        channels: int,
        head_width: int,
        depth: int,
        context_width: int,
        learnable_image_scale: bool,
    ) -> None:
        super().__init__()
        self.norm = Float32GroupNorm(channels, epsilon=TRANSFORMER_NORM_EPSILON)
        self.project_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            SpatialBlock(
                width=channels,
                num_heads=channels // head_width,
                context_width=context_width,
                learnable_image_scale=learnable_image_scale,
            )
            for _ in range(depth)
        )
        self.project_out = zero_initialised(nn.Linear(channels, channels))

    def forward(
        self, hidden: Float[Tensor, "batch_frames channels height width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels height width"]:
        """Attend within each frame."""
        tokens = rearrange(self.norm(hidden), "n c h w -> n (h w) c")
        tokens = self.project_in(tokens)
        for block in self.blocks:
            tokens = block(tokens, context)
        tokens = self.project_out(tokens)
        return rearrange(tokens, "n (h w) c -> n c h w", h=hidden.shape[2]) + hidden


class TemporalTransformer(nn.Module):
    """Transformer over the frames of each pixel, added to its input; one block per site offered to camera control."""

    def __init__(
        self,
        *,
        channels: int,
        sites: tuple[BlockSite, ...],
        pointwise_convolutions: bool,
        adapter_for: Callable[[BlockSite], CameraAdapter | None],
    ) -> None:
        super().__init__()
        width = sites[0].width
        projection = PointwiseConv1d if pointwise_convolutions else nn.Linear
        self.norm = Float32GroupNorm(channels, epsilon=TRANSFORMER_NORM_EPSILON)
        self.project_in = projection(channels, width)
        self.blocks = nn.ModuleList(
            TemporalBlock(width=width, num_heads=site.num_heads, camera=adapter_for(site)) for site in sites
        )
        self.project_out = zero_initialised(projection(width, channels))

    def forward(
        self, hidden: Float[Tensor, "batch_frames channels height width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels height width"]:
        """Attend along time at each pixel."""
        height, width = hidden.shape[2:]
        # The statistics of this norm span the clip, not the frame.
        clip = rearrange(hidden, "(b f) c h w -> b c f (h w)", f=context.frames)
        tokens = rearrange(self.norm(clip), "b c f n -> (b n) f c")
        tokens = self.project_in(tokens)
        for block in self.blocks:
            tokens = block(tokens, context, height, width)
        tokens = self.project_out(tokens)
        return rearrange(tokens, "(b h w) f c -> (b f) c h w", h=height, w=width) + hidden
