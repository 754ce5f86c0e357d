"""The KL autoencoder of latent diffusion (arXiv 2112.10752), as implemented by diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from cami2v.draws import Draws
from cami2v.encoders.base import FirstStage, fixed_initialisation
from cami2v.encoders.late_import import imported


class AutoencoderKLFirstStage(FirstStage):
    """Encode to a *sample* of the posterior times `scale`; `frames_at_once` bounds the memory of both directions.

    Without `weights` (safetensors with this module's parameter names) the autoencoder is random, drawn from `seed`.
    """

    def __init__(
        self,
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        residual_blocks: int,
        latent_channels: int,
        scale: float,
        frames_at_once: int = 16,
        seed: int = 0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        levels = len(channel_multipliers)
        self.latent_channels = latent_channels
        self.downsample = 2 ** (levels - 1)
        self.scale = scale
        self.frames_at_once = frames_at_once
        self._posterior = imported("diffusers.models.autoencoders.vae").DiagonalGaussianDistribution
        implementation = imported("diffusers.models.autoencoders.autoencoder_kl")
        with fixed_initialisation(seed):
            self.autoencoder = implementation.AutoencoderKL(
                block_out_channels=tuple(multiplier * channels for multiplier in channel_multipliers),
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                layers_per_block=residual_blocks,
                latent_channels=latent_channels,
            )
        if weights is not None:
            self.load_state_dict(load_file(weights))

    @torch.no_grad()
    def moments(
        self, video: Float[Tensor, "batch 3 frames height width"]
    ) -> Float[Tensor, "batch parameters frames latent_height latent_width"]:
        """Encode to mean and log-variance, unscaled; raises ValueError for sizes the levels do not divide."""
        batch, _, _, height, width = video.shape
        if height % self.downsample or width % self.downsample:
            raise ValueError(
                f"video: got {height}x{width}, height and width must be multiples of {self.downsample} (first stage); "
                "change data.resolution"
            )
        images = rearrange(video, "b c f h w -> (b f) c h w").to(self.autoencoder.dtype)
        chunks = images.split(self.frames_at_once)
        moments = torch.cat([self.autoencoder.encode(chunk).latent_dist.parameters for chunk in chunks])
        return rearrange(moments, "(b f) p h w -> b p f h w", b=batch)

    def sample(
        self, moments: Float[Tensor, "batch parameters frames latent_height latent_width"], draws: Draws
    ) -> Float[Tensor, "batch channels frames latent_height latent_width"]:
        """Sample the posterior of every frame."""
        batch, _, frames = moments.shape[:3]
        images = rearrange(moments, "b p f h w -> (b f) p h w").to(self.autoencoder.dtype)
        posterior = self._posterior(images)
        noise = draws.normal("posterior", (frames, *posterior.mean.shape[1:]))
        noise = rearrange(noise, "b f c h w -> (b f) c h w").to(images.device, images.dtype)
        return rearrange(self.scale * (posterior.mean + posterior.std * noise), "(b f) c h w -> b c f h w", b=batch)

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "batch channels frames latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 frames height width"]:
        """Decode every frame."""
        images = rearrange(latents / self.scale, "b c f h w -> (b f) c h w").to(self.autoencoder.dtype)
        decoded = [self.autoencoder.decode(chunk).sample for chunk in images.split(self.frames_at_once)]
        return rearrange(torch.cat(decoded), "(b f) c h w -> b c f h w", b=latents.shape[0])
