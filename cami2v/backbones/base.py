"""What the rest of the house asks of a denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int64
from torch import Tensor, nn

from cami2v.batch import Conditioning
from cami2v.camera_control.base import BlockSite, CameraCondition


class VideoBackbone(nn.Module, ABC):
    """A denoiser of video latents that offers its temporal transformer blocks to camera control."""

    sites: tuple[BlockSite, ...]
    """Every temporal transformer block, in the order of the forward pass."""
    smallest_multiple: int = 1
    """What divides the heights and widths of the latents it takes."""
    ends_with_image: bool = False
    """Whether it can be conditioned on a last frame besides the conditioning one."""
    overwrites_output: bool = False
    """Whether the next call writes over what this one returned, as a CUDA graph does (`cami2v.compilation`)."""

    @abstractmethod
    def forward(
        self,
        noisy_latents: Float[Tensor, "batch channels frames height width"],
        timesteps: Int64[Tensor, " batch"],
        conditioning: Conditioning,
        camera: CameraCondition | None,
    ) -> Float[Tensor, "batch channels frames height width"]:
        """Predict the diffusion target; without a camera condition the camera adapters are not called."""
