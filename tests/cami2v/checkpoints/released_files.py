"""Tiny models, and files as their published counterparts would have been released."""

from __future__ import annotations

import copy
import functools
import math
import re
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
}

TEXT_BLOCK = re.compile(r"cond_stage_model\.model\.transformer\.resblocks\.(\d+)\.")


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
    return as_released(tiny_model(camera, *overrides), rescale=rescale)


def as_released(model: VideoDiffusion, *, rescale: bool = False) -> dict[str, Tensor]:
    """Return random fp16 weights for a model, as its released counterpart would hold them."""
    return {name: random_tensor(name, shape) for name, shape in released_shapes(model, rescale=rescale).items()}


def released_shapes(model: VideoDiffusion, *, rescale: bool = False) -> dict[str, tuple[int, ...]]:
    """Return what the released counterpart of a model holds, left-overs included."""
    parameters = dict(model.named_parameters())
    names = released_names(parameters)
    shapes = {names[ours]: tuple(to_released_shape(ours, value).shape) for ours, value in parameters.items()}
    blocks = [int(match[1]) for match in map(TEXT_BLOCK.match, shapes) if match]
    # The last block of the text tower, which is never run and not built.
    unused = {f"cond_stage_model.model.transformer.resblocks.{max(blocks) + 1}.ln_1.weight": (8,)}
    return shapes | LEFT_OVERS | unused | ({"scale_arr": (1400,)} if rescale else {})


def random_tensor(name: str, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    scale = max(1, math.prod(shape[1:])) ** -0.5
    return (scale * torch.randn(tuple(shape), generator=generator)).half()


def is_camera(released: str) -> bool:
    """Tell whether a released name is one that the camera methods add."""
    return any(part in released for part in ("cc_projection", "pluker_projection", "epipolar", "pose_encoder."))


def base_and_delta(camera: str = "cami2v", *overrides: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the two files of a method, random."""
    return split(released_weights(camera, *overrides))


def split(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split whole weights as they were published: everything but the camera, and the camera."""
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
