"""A stand-in for the detectors of the Frechet video distance."""

# TorchScript reads annotations as objects: no `from __future__ import annotations` here.
import torch
from torch import nn


class PixelStatistics(nn.Module):
    """400 fixed combinations of pixel values, called like StyleGAN-V's detector."""

    weights: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn((3 * 49, 400), generator=torch.Generator().manual_seed(0))
        self.register_buffer("weights", weights)

    def forward(
        self, videos: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = True
    ) -> torch.Tensor:
        assert not rescale
        assert not resize
        assert return_features
        assert videos.shape[-1] == 224
        return videos.mean(2)[..., ::32, ::32].flatten(1) @ self.weights
