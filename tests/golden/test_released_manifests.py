"""Full-size models against the parameter lists of the released checkpoints (built without memory, on `meta`)."""

from __future__ import annotations

import functools
import gzip
import json
import re
from typing import Any

import pytest
import torch
from torch import nn

from cami2v.backbones.dynamicrafter.projector import Resampler
from cami2v.camera_control.base import CameraControl
from cami2v.checkpoints.released_names import our_names, released_names, to_our_shape
from cami2v.encoders.autoencoder_kl import AutoencoderKLFirstStage
from cami2v.encoders.openclip_image import OpenCLIPImageEncoder
from cami2v.encoders.openclip_text import OpenCLIPTextEncoder
from tests.golden.cases import golden_folder
from tests.golden.model_builders import build_camera_control, build_unet

POSE_ENCODER = {
    "downscale_factor": 8,
    "channels": [320, 640, 1280, 1280],
    "nums_rb": 2,
    "temporal_attention_nhead": 8,
    "temporal_position_encoding_max_len": 16,
    "ksize": 1,
    "compression_factor": 1,
    "use_conv": False,
    "sk": True,
}
EPIPOLAR = {"attention_resolution": [8, 4, 2, 1], "num_register_tokens": 4, "add_small_perturbation_on_zero_T": True}
CAMI2V = {"pose_encoder": POSE_ENCODER, "epipolar": EPIPOLAR, "add_type": "add_to_main_branch"}

# manifest: (camera method, its settings, learnable image scale)
RELEASED: dict[str, tuple[str, dict[str, Any], bool]] = {
    "000_dynamicrafter_256x256": ("unet_plain", {}, True),
    "000_dynamicrafter_512x320": ("unet_plain", {}, False),
    "001_motionctrl_256x256": ("motionctrl", {}, True),
    "002_cameractrl_256x256": ("cameractrl", {"pose_encoder": POSE_ENCODER}, True),
    "003_cami2v_256x256": ("cami2v", CAMI2V, True),
    "003_cami2v_512x320": ("cami2v", CAMI2V, False),
    "004_realcam-i2v_256x256": ("realcam", CAMI2V, True),
    "004_realcam-i2v_512x320": ("realcam", CAMI2V, False),
    "training__004_realcam-i2v_256x256": ("realcam", CAMI2V, True),
}


@pytest.fixture(scope="module")
def frozen_parts() -> dict[str, nn.Module]:
    """Build the parts that all released models share."""
    with torch.device("meta"):
        return {
            "first_stage": AutoencoderKLFirstStage(
                channels=128, channel_multipliers=[1, 2, 4, 4], residual_blocks=2, latent_channels=4, scale=0.18215
            ),
            "text_encoder": OpenCLIPTextEncoder(width=1024, num_heads=16, layers=24),
            "image_encoder": OpenCLIPImageEncoder(width=1280, num_heads=16, layers=32, patch_size=14),
            "image_projector": Resampler(
                input_width=1280,
                width=1024,
                output_width=1024,
                depth=4,
                num_heads=12,
                head_width=64,
                queries_per_frame=16,
                frames=16,
            ),
        }


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_map_one_to_one(name: str, frozen_parts: dict[str, nn.Module]) -> None:
    model, control = build_model(name, frozen_parts)
    entries = {entry["name"]: entry for entry in manifest(name)["entries"]}
    translation = our_names(entries)
    assert translation.unknown == ()
    assert all(entries[released]["kind"] == "param" for released in translation.ours)

    actual = {parameter: tuple(value.shape) for parameter, value in model.named_parameters()}
    expected = {ours: our_shape(ours, entries[released]["shape"]) for released, ours in translation.ours.items()}
    assert actual == expected
    assert released_names(actual) == {ours: released for released, ours in translation.ours.items()}

    unused = [released for released in translation.unused if entries[released]["kind"] == "param"]
    known = ("cond_stage_model.", "embedder.", "depth_predictor.")
    assert all(released.startswith(known) for released in unused)

    trainable = {translation.ours[released] for released, entry in entries.items() if entry["trainable"]}
    assert trainable == trained_by_recipe(model, control)


def build_model(name: str, frozen_parts: dict[str, nn.Module]) -> tuple[nn.Module, CameraControl]:
    """Assemble a model's parts under the names they have in VideoDiffusion."""
    kind, settings, learnable_image_scale = RELEASED[name]
    with torch.device("meta"):
        control = build_camera_control(kind, settings)
        unet = build_unet(
            {
                "out_channels": 4,
                "model_channels": 320,
                "channel_mult": [1, 2, 4, 4],
                "num_res_blocks": 2,
                "attention_resolutions": [4, 2, 1],
                "num_head_channels": 64,
                "transformer_depth": 1,
                "context_dim": 1024,
                "dropout": 0.1,
                "temporal_length": 16,
                "default_fs": 3,
                "image_cross_attention_scale_learnable": learnable_image_scale,
                "addition_attention": True,
            },
            control.adapter_for,
        )
    return nn.ModuleDict({"backbone": unet, "camera": control, **frozen_parts}), control


def trained_by_recipe(model: nn.Module, control: CameraControl) -> set[str]:
    """Name what the published recipe trains: the camera method's parameters and those it declares besides."""
    patterns = [r"camera\..*", r"backbone\..*\.camera\..*", *control.also_trains]
    return {name for name, _ in model.named_parameters() if any(re.fullmatch(p, name) for p in patterns)}


def our_shape(our_name: str, shape: list[int]) -> tuple[int, ...]:
    return tuple(to_our_shape(our_name, torch.empty(shape, device="meta")).shape)


@functools.cache
def manifest(name: str) -> dict[str, Any]:
    with gzip.open(golden_folder() / "manifests" / f"{name}.json.gz", "rt") as file:
        return json.load(file)
