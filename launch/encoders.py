"""The frozen towers of a composed model, apart from it: what they are, and encoding with them alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Float32
from omegaconf import DictConfig
from torch import Tensor

from cami2v.encoders.identity import encoder_identity
from cami2v.model import VideoDiffusion
from cami2v.signature import TARGET, locate
from cami2v.training.engine import autocast
from data_pipeline.cache.read import ClipCache
from launch.compose import plain

TOWERS = ("first_stage", "text_encoder", "image_encoder")
"""Attributes of the model whose outputs a cache may hold."""


def encoder_identities(config: DictConfig, model: VideoDiffusion) -> dict[str, str]:
    """Return the identity of each frozen tower that a cache may stand in for; the weights must be loaded."""
    parts = {
        "first_stage": (config.first_stage, model.first_stage),
        "text": (config.encoders.text, model.text_encoder),
        "image": (config.encoders.image, model.image_encoder),
    }
    return {name: encoder_identity(tower, _arguments(plain(node, name), name)) for name, (node, tower) in parts.items()}


def _arguments(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a part's arguments, those that only its signature gives included."""
    parameters = inspect.signature(locate(node[TARGET], f"{key}.{TARGET}")).parameters
    defaults = {name: each.default for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
    return {**defaults, **{name: value for name, value in node.items() if name != TARGET}}


class ModelTowers:
    """Encodes with a model's frozen towers, without gradients, on `device`; results come to the CPU."""

    def __init__(self, model: VideoDiffusion, *, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        self.latent_channels = model.first_stage.latent_channels
        self.device = device
        self.autocast_dtype = autocast_dtype
        self._first_stage = model.first_stage.eval().to(device)
        self._text = model.text_encoder.eval().to(device)
        self._image = model.image_encoder.eval().to(device)

    def moments(
        self, frames: Float32[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames parameters latent_height latent_width"]:
        """Return what the first stage draws latents from."""
        video = rearrange(frames, "frames rgb h w -> 1 rgb frames h w")
        return rearrange(self._run(self._first_stage.moments, video), "1 p frames h w -> frames p h w")

    def text_tokens(self, captions: Sequence[str]) -> Float[Tensor, "captions tokens context"]:
        """Encode captions."""
        with torch.no_grad(), autocast(self.autocast_dtype, self.device):
            return self._text.encode(list(captions)).cpu()

    def image_tokens(self, frames: Float32[Tensor, "frames 3 height width"]) -> Float[Tensor, "frames tokens channels"]:
        """Encode frames for the image condition."""
        return self._run(self._image.encode, frames)

    def _run(self, encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with torch.no_grad(), autocast(self.autocast_dtype, self.device):
            return encode(images.to(self.device)).cpu()


def check_cache(config: DictConfig, model: VideoDiffusion, cache: ClipCache, trainable: Sequence[str]) -> None:
    """Raise ValueError where a cache does not hold what this run's towers would compute; weights must be loaded."""
    trained = [name for name in trainable if name.startswith(tuple(f"{tower}." for tower in TOWERS))]
    if trained:
        raise ValueError(
            f"data.cache={cache.folder}: trainer.trainable trains {len(trained)} weights of the towers that the cache "
            f"stands in for (first: {trained[0]}); leave them out, or leave data.cache out"
        )
    cache.check_encoders(encoder_identities(config, model))
