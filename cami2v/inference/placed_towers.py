"""Frozen towers on devices of their own: what goes in is moved there, what comes out is moved to the denoiser's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cami2v.draws import Draws
from cami2v.encoders.base import DepthEstimator, FirstStage, ImageEncoder, TextEncoder
from cami2v.model import VideoDiffusion

Tower = Literal["first_stage", "text_encoder", "image_encoder"]


class PlacedFirstStage(FirstStage):
    """A first stage on `device`, for callers on `home`."""

    def __init__(self, inner: FirstStage, device: torch.device, home: torch.device) -> None:
        super().__init__()
        self.inner, self.device, self.home = inner, device, home
        self.latent_channels, self.downsample = inner.latent_channels, inner.downsample

    def moments(
        self, video: Float[Tensor, "batch 3 frames height width"]
    ) -> Float[Tensor, "batch parameters frames latent_height latent_width"]:
        """Encode there."""
        return self.inner.moments(video.to(self.device)).to(self.home)

    def sample(
        self, moments: Float[Tensor, "batch parameters frames latent_height latent_width"], draws: Draws
    ) -> Float[Tensor, "batch channels frames latent_height latent_width"]:
        """Draw latents there; the numbers are the same on every device."""
        return self.inner.sample(moments.to(self.device), draws.on(self.device)).to(self.home)

    def encode(
        self, video: Float[Tensor, "batch 3 frames height width"], draws: Draws
    ) -> Float[Tensor, "batch channels frames latent_height latent_width"]:
        """Encode there, in one go."""
        return self.inner.encode(video.to(self.device), draws.on(self.device)).to(self.home)

    def decode(
        self, latents: Float[Tensor, "batch channels frames latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 frames height width"]:
        """Decode there."""
        return self.inner.decode(latents.to(self.device)).to(self.home)


class PlacedTextEncoder(TextEncoder):
    """A text encoder elsewhere, for callers on `home`."""

    def __init__(self, inner: TextEncoder, home: torch.device) -> None:
        super().__init__()
        self.inner, self.home, self.width = inner, home, inner.width

    def encode(self, captions: Sequence[str]) -> Float[Tensor, "batch tokens channels"]:
        """Encode there."""
        return self.inner.encode(captions).to(self.home)


class PlacedImageEncoder(ImageEncoder):
    """An image encoder on `device`, for callers on `home`."""

    def __init__(self, inner: ImageEncoder, device: torch.device, home: torch.device) -> None:
        super().__init__()
        self.inner, self.device, self.home, self.width = inner, device, home, inner.width

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens channels"]:
        """Encode there."""
        return self.inner.encode(images.to(self.device)).to(self.home)


class PlacedDepth(DepthEstimator):
    """A depth network on `device`, for callers on `home`."""

    def __init__(self, inner: DepthEstimator, device: torch.device, home: torch.device) -> None:
        super().__init__()
        self.inner, self.device, self.home = inner, device, home

    def metric_depth(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
        """Estimate there."""
        return self.inner.metric_depth(images.to(self.device)).to(self.home)


def with_towers_apart(
    model: VideoDiffusion, devices: Mapping[Tower, torch.device], home: torch.device
) -> VideoDiffusion:
    """Return the same model, its parameters shared, whose denoiser is on `home` and whose towers are on `devices`."""
    first_stage, text_encoder, image_encoder = model.first_stage, model.text_encoder, model.image_encoder
    if "first_stage" in devices:
        first_stage = PlacedFirstStage(first_stage, devices["first_stage"], home)
    if "text_encoder" in devices:
        text_encoder = PlacedTextEncoder(text_encoder, home)
    if "image_encoder" in devices:
        image_encoder = PlacedImageEncoder(image_encoder, devices["image_encoder"], home)
    return VideoDiffusion(
        first_stage=first_stage,
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        image_projector=model.image_projector,
        camera=model.camera,
        backbone=model.backbone,
        schedule=model.schedule,
        prediction=model.prediction,
        frame_rate=model.frame_rate,
        condition_drop_probability=model.condition_drop_probability,
        random_condition_frame=model.random_condition_frame,
        depth=model.depth,
        objective=model.objective,
    ).eval()
