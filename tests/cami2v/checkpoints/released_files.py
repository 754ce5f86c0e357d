"""Tiny models, and files as their published counterparts would have been released."""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cami2v.checkpoints.diagnosis import CAMERA
from cami2v.checkpoints.released_names import released_names, to_released_shape
from cami2v.model import VideoDiffusion
from launch.build import build_model
from launch.compose import compose_config

TINY = [
    "first_stage=autoencoder_kl", "first_stage.channels=32", "first_stage.channel_multipliers=[1,2]",
    "first_stage.residual_blocks=1", "camera.trace_scale=1.0", "backbone.widths=[32,64]", "backbone.head_width=16",
    "data.frames=4",
]  # fmt: skip
LEFT_OVERS = {
    "betas": (1000,),
    "alphas_cumprod": (1000,),
    "embedder.model.visual.proj": (8, 8),
    "embedder.model.token_embedding.weight": (16, 8),
    "cond_stage_model.model.text_projection": (8, 8),
    # The last block of the text tower, which is never run.
    "cond_stage_model.model.transformer.resblocks.1.ln_1.weight": (8,),
}


def tiny_model(camera: str = "cami2v", *overrides: str) -> VideoDiffusion:
    """Build a model of every part that released files have, small."""
    return copy.deepcopy(_built(camera, *overrides))


@functools.cache
def _built(camera: str, *overrides: str) -> VideoDiffusion:
    own = [item for item in TINY if camera != "none" or not item.startswith("camera.")]
    return build_model(compose_config("train", [f"camera={camera}", *own, *overrides]))


@functools.cache
def released_weights(camera: str = "cami2v", *overrides: str, rescale: bool = False) -> dict[str, Tensor]:
    """Return random fp16 weights under released names, left-overs included."""
    model = tiny_model(camera, *overrides)
    parameters = dict(model.named_parameters())
    names = released_names(parameters)
    shapes = {names[ours]: to_released_shape(ours, value).shape for ours, value in parameters.items()}
    left_overs = LEFT_OVERS | ({"scale_arr": (1400,)} if rescale else {})
    return {name: random_tensor(name, tuple(shape)) for name, shape in (shapes | left_overs).items()}


def random_tensor(name: str, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(tuple(shape), generator=generator).half()


def is_camera(released: str) -> bool:
    """Tell whether a released name is one that the camera methods add."""
    return any(part in released for part in ("cc_projection", "pluker_projection", "epipolar", "pose_encoder."))


def base_and_delta(camera: str = "cami2v", *overrides: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split whole weights as they were published: everything but the camera, and the camera."""
    weights = released_weights(camera, *overrides)
    delta = {name: value for name, value in weights.items() if is_camera(name)}
    return {name: value for name, value in weights.items() if name not in delta}, delta


def save(path: Path, weights: dict[str, Tensor], *wrappers: str) -> Path:
    """Write a torch.save file, wrapped from the inside out."""
    held: object = weights
    for wrapper in wrappers:
        held = {wrapper: held}
    torch.save(held, path)
    return path


def all_zero(model: VideoDiffusion) -> VideoDiffusion:
    """Blank a model, so that what arrives is what a file brought."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def parameters_of(model: VideoDiffusion, *, camera: bool) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if bool(CAMERA.fullmatch(n)) == camera}
