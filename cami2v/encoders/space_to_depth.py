"""Lossless first stage without weights."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cami2v.draws import Draws
from cami2v.encoders.base import FirstStage


class SpaceToDepth(FirstStage):
    """Move each factor x factor patch of pixels into the channels, so that a demo can train from nothing."""

    def __init__(self, *, factor: int) -> None:
        super().__init__()
        self.downsample = factor
        self.latent_channels = 3 * factor**2

    def moments(
        self, video: Float[Tensor, "batch 3 frames height width"]
    ) -> Float[Tensor, "batch channels frames latent_height latent_width"]:
        """Rearrange pixels; raises ValueError for sizes that the factor does not divide."""
        height, width = video.shape[-2:]
        if height % self.downsample or width % self.downsample:
            raise ValueError(
                f"video: got {height}x{width}, height and width must be multiples of first_stage.factor "
                f"{self.downsample}; change data.resolution or the factor"
            )
        factor = self.downsample
        return rearrange(video, "b c f (h y) (w x) -> b (c y x) f h w", y=factor, x=factor)

    def sample(
        self, moments: Float[Tensor, "batch channels frames latent_height latent_width"], draws: Draws
    ) -> Float[Tensor, "batch channels frames latent_height latent_width"]:
        """Return the rearranged pixels: nothing is drawn."""
        return moments.float()

    def decode(
        self, latents: Float[Tensor, "batch channels frames latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 frames height width"]:
        """Undo `moments` exactly."""
        factor = self.downsample
        return rearrange(latents, "b (c y x) f h w -> b c f (h y) (w x)", y=factor, x=factor)
