"""Contracts of the frozen encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cami2v.draws import Draws


class FirstStage(nn.Module, ABC):
    """Maps videos to latents and back."""

    latent_channels: int
    downsample: int
    """Spatial factor between pixels and latents."""

    @abstractmethod
    def moments(
        self, video: Float[Tensor, "batch 3 frames height width"]
    ) -> Float[Tensor, "batch parameters frames latent_height latent_width"]:
        """Encode frames in [-1, 1] one by one to what latents are drawn from: a posterior's mean, then log-variance.

        A first stage without a posterior has the mean only. No randomness: this is what a cache holds.
        """

    @abstractmethod
    def sample(
        self, moments: Float[Tensor, "batch parameters frames latent_height latent_width"], draws: Draws
    ) -> Float[Tensor, "batch channels frames latent_height latent_width"]:
        """Draw latents; `draws` supplies the noise of a posterior."""

    def encode(
        self, video: Float[Tensor, "batch 3 frames height width"], draws: Draws
    ) -> Float[Tensor, "batch channels frames latent_height latent_width"]:
        """Encode frames in [-1, 1] one by one; `draws` supplies the noise of a sampled posterior."""
        return self.sample(self.moments(video), draws)

    @abstractmethod
    def decode(
        self, latents: Float[Tensor, "batch channels frames latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 frames height width"]:
        """Decode to frames around [-1, 1], not clamped."""


class TextEncoder(nn.Module, ABC):
    """Maps captions to context tokens."""

    width: int

    @abstractmethod
    def encode(self, captions: Sequence[str]) -> Float[Tensor, "batch tokens channels"]:
        """Encode captions; the empty string is the unconditional caption."""


class ImageEncoder(nn.Module, ABC):
    """Maps images to tokens."""

    width: int

    @abstractmethod
    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens channels"]:
        """Encode images in [-1, 1] of any size."""


class DepthEstimator(nn.Module, ABC):
    """Maps images to metric depth."""

    @abstractmethod
    def metric_depth(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
        """Estimate the depth along the optical axis, in metres, of images in [-1, 1] of any size."""


@contextmanager
def fixed_initialisation(seed: int) -> Iterator[None]:
    """Initialise parameters from `seed`, leaving the global generator as it was.

    An encoder without pretrained weights is then the same in every process and after every resume.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
