"""The DynamiCrafter denoiser: a 2-D U-Net over frames with temporal layers (arXiv 2310.12190)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from cami2v.backbones.activation_checkpointing import Checkpointing
from cami2v.backbones.base import VideoBackbone
from cami2v.backbones.dynamicrafter.context import BlockContext, split_image_tokens
from cami2v.backbones.dynamicrafter.layers import (
    NORM_GROUPS,
    Float32GroupNorm,
    sinusoidal_embedding,
)
from cami2v.backbones.dynamicrafter.parts import PartBuilder
from cami2v.backbones.initialisation import randomise_zero_weights, zero_initialised
from cami2v.batch import Conditioning
from cami2v.camera_control.base import BlockSite, CameraAdapter, CameraCondition


class DynamiCrafterUNet(VideoBackbone):
    """Predict the diffusion target of video latents beside the conditioning frame's latent.

    `widths` are the channels of each level, from the latents' resolution down, halving at each step.
    `attention_downsamples` are the factors between latent and feature map at which encoder and decoder attend; the
    middle always does. Without `zero_output_layers` the outputs that otherwise start at zero are random, so that
    gradients pass through an untrained model. Raises ValueError for widths that the 32-group norms or the heads do not
    divide.
    """

    def __init__(
        self,
        *,
        latent_channels: int,
        widths: Sequence[int],
        residual_blocks: int,
        attention_downsamples: Sequence[int],
        head_width: int,
        transformer_depth: int,
        context_width: int,
        dropout: float,
        temporal_dropout: float,
        frames: int,
        learnable_image_scale: bool,
        initial_attention: bool,
        activation_checkpointing: Checkpointing,
        adapter_for: Callable[[BlockSite], CameraAdapter | None],
        zero_output_layers: bool = True,
    ) -> None:
        super().__init__()
        _check_widths(widths, head_width)
        self.latent_channels = latent_channels
        self.model_channels = model_channels = widths[0]
        self.frames = frames
        self.smallest_multiple = 2 ** (len(widths) - 1)
        parts = PartBuilder(
            embedding_width=4 * model_channels,
            attention_downsamples=tuple(attention_downsamples),
            head_width=head_width,
            transformer_depth=transformer_depth,
            context_width=context_width,
            dropout=dropout,
            temporal_dropout=temporal_dropout,
            learnable_image_scale=learnable_image_scale,
            activation_checkpointing=activation_checkpointing,
            adapter_for=adapter_for,
        )
        self.time_embedding = _embedding_mlp(model_channels)
        self.frame_rate_embedding = _embedding_mlp(model_channels)
        zero_initialised(self.frame_rate_embedding[2])
        self.encoder, skip_widths = parts.encoder(
            latent_channels, model_channels, widths, residual_blocks, initial_attention
        )
        self.middle = parts.middle(widths[-1], downsample=self.smallest_multiple)
        self.decoder = parts.decoder(widths, residual_blocks, skip_widths)
        self.output_norm = Float32GroupNorm(model_channels)
        self.output_convolution = zero_initialised(nn.Conv2d(model_channels, latent_channels, kernel_size=3, padding=1))
        self.sites = tuple(parts.sites)
        if not zero_output_layers:
            randomise_zero_weights(self)

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch channels frames height width"],
        timesteps: Int64[Tensor, " batch"],
        conditioning: Conditioning,
        camera: CameraCondition | None,
    ) -> Float[Tensor, "batch channels frames height width"]:
        """Predict the diffusion target, in the dtype of `noisy_latents`.

        Raises ValueError for more frames than the model was built for and for sizes its levels do not divide.
        """
        batch, _, frames, height, width = noisy_latents.shape
        self._check_input(frames, height, width)
        dtype = self.output_convolution.weight.dtype
        context = BlockContext(
            batch=batch,
            frames=frames,
            embedding=self._embed(timesteps, conditioning, dtype),
            text_tokens=conditioning.text_tokens.to(dtype),
            image_tokens=split_image_tokens(conditioning, frames).to(dtype),
            camera=camera,
        )
        stacked = torch.cat([noisy_latents.to(dtype), conditioning.image_latents.to(dtype)], dim=1)
        hidden = rearrange(stacked, "b c f h w -> (b f) c h w")
        skips = []
        for stage in self.encoder:
            hidden = stage(hidden, context)
            skips.append(hidden)
        hidden = self.middle(hidden, context)
        for stage in self.decoder:
            hidden = stage(torch.cat([hidden, skips.pop()], dim=1), context)
        output = self.output_convolution(functional.silu(self.output_norm(hidden)))
        return rearrange(output, "(b f) c h w -> b c f h w", f=frames).to(noisy_latents.dtype)

    def _embed(
        self, timesteps: Int64[Tensor, " batch"], conditioning: Conditioning, dtype: torch.dtype
    ) -> Float[Tensor, "batch embedding"]:
        time = sinusoidal_embedding(timesteps.float(), self.model_channels).to(dtype)
        rate = sinusoidal_embedding(conditioning.frame_rate, self.model_channels).to(dtype)
        return self.time_embedding(time) + self.frame_rate_embedding(rate)

    def _check_input(self, frames: int, height: int, width: int) -> None:
        if frames > self.frames:
            raise ValueError(
                f"noisy latents: got {frames} frames, the backbone takes at most {self.frames} (backbone.frames); "
                "use fewer frames or a backbone built for more"
            )
        if height % self.smallest_multiple or width % self.smallest_multiple:
            raise ValueError(
                f"noisy latents: got {height}x{width}, height and width must be multiples of {self.smallest_multiple} "
                "(one halving per level of backbone.widths); change data.resolution"
            )


def _embedding_mlp(model_channels: int) -> nn.Sequential:
    width = 4 * model_channels
    return nn.Sequential(nn.Linear(model_channels, width), nn.SiLU(), nn.Linear(width, width))


def _check_widths(widths: Sequence[int], head_width: int) -> None:
    for width in widths:
        if width % NORM_GROUPS:
            raise ValueError(
                f"backbone.widths: got {list(widths)}, all must be multiples of {NORM_GROUPS} (groups of the norms)"
            )
        if width % head_width:
            raise ValueError(
                f"backbone.head_width: got {head_width}, must divide every one of backbone.widths {list(widths)}"
            )
