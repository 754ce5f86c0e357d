"""Denoisers under every camera method, pose encoders and image projectors against the published ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from cami2v.backbones.dynamicrafter.unet import DynamiCrafterUNet
from cami2v.batch import Conditioning
from cami2v.camera_control.base import CameraCondition, CameraControl
from cami2v.camera_control.cami2v import CamI2V, CamI2VCondition
from cami2v.camera_control.motionctrl import MotionCtrlCondition
from cami2v.camera_control.pose_encoder import PoseEncoder
from cami2v.camera_control.pyramid import Pyramid
from cami2v.geometry.cameras import scaled_relative_poses
from cami2v.geometry.rays import pluecker_map
from tools.parity.checks import Checks
from tools.parity.network_cases import ModelCase, PublishedDraws, compare_checksum, compare_output, compare_tap
from tools.parity.network_masks import compare_masks, stored_masks
from tools.parity.published_settings import build_camera_control, build_pose_encoder, build_resampler, build_unet
from tools.parity.weights import give_weights

TEXT_TOKENS, IMAGE_TOKENS = 77, 16
"""Fixed in the published denoiser: exactly 16 image tokens per frame after 77 of text are given frame by frame."""


@torch.no_grad()
def unet(case: ModelCase) -> Checks:
    """Compare a denoiser's prediction, all its stages on the way, and what the cameras are encoded to."""
    checks = Checks()
    settings = case.hyper_parameters
    trace_scale = case.geometry["trace_scale_factor"] if "geometry" in settings else 1.0
    levels = len(settings["unet"]["channel_mult"])
    control = build_camera_control(case.kind, settings, levels=levels, trace_scale=trace_scale).eval()
    denoiser = build_unet(settings["unet"], control.adapter_for).eval()
    give_weights(checks, case, "unet", denoiser)
    condition = encode_cameras(checks, case, control) if "geometry" in settings else None
    noisy = case.input("x")[:, : denoiser.latent_channels]
    with stage_outputs(denoiser) as stages:
        predicted = denoiser(noisy, case.input("timesteps"), conditioning(case, denoiser), condition)
    compare_output(checks, case, "y", predicted, label=f"y{compare_stages(checks, case, stages)}")
    return checks


@torch.no_grad()
def pose_encoder(case: ModelCase) -> Checks:
    """Compare the features of every level."""
    checks = Checks()
    encoder = build_pose_encoder(case.hyper_parameters["pose_encoder"])
    give_weights(checks, case, "pose_encoder", encoder)
    features = encoder(case.input("plucker"))
    checks.equal("number of levels", len(features), len(case.outputs))
    for level, feature in enumerate(features):
        compare_output(checks, case, f"feature_{level}", rearrange(feature, "b h w f c -> (b f) c h w"))
    return checks


@torch.no_grad()
def resampler(case: ModelCase) -> Checks:
    """Compare the image projector's tokens."""
    checks = Checks()
    projector = build_resampler(case.hyper_parameters["resampler"])
    give_weights(checks, case, "resampler", projector)
    compare_output(checks, case, "y", projector(case.input("x"), projector.frames))
    return checks


def encode_cameras(checks: Checks, case: ModelCase, control: CameraControl) -> CameraCondition:
    """Encode the case's geometry, compare all that is stored of it and continue with the stored masks."""
    cameras, condition_frame = case.cameras(), case.condition_frame
    trace_scale = case.geometry["trace_scale_factor"]
    poses = scaled_relative_poses(cameras, condition_frame, trace_scale)
    compare_output(checks, case, "relative_c2w", poses)
    encoder = getattr(control, "pose_encoder", None)
    if isinstance(encoder, PoseEncoder):
        give_weights(checks, case, "pose_encoder", encoder)
        pluecker = pluecker_map(poses, cameras.intrinsics_pixels, cameras.height, cameras.width)
        compare_tap(checks, case, "plucker", pluecker)
    condition = control.encode(cameras, condition_frame=condition_frame, draws=PublishedDraws(case))
    if isinstance(condition, MotionCtrlCondition):
        compare_output(checks, case, "RT", condition.poses)
    features = getattr(condition, "features", Pyramid(levels={}))
    for level, (_, feature) in enumerate(sorted(features.levels.items())):
        compare_tap(checks, case, f"pose_feature.{level}", rearrange(feature, "b h w f c -> b c f h w"))
    if isinstance(condition, CamI2VCondition):
        assert isinstance(control, CamI2V)
        compare_masks(checks, case, control, condition)
        condition = dataclasses.replace(condition, masks=stored_masks(case, control, condition))
    return condition


def compare_stages(checks: Checks, case: ModelCase, stages: dict[str, Tensor]) -> str:
    """Compare stage outputs; return a remark that names the first that diverges, or nothing."""
    remark = ""
    for name in stages:
        if name in case.taps:
            agrees = compare_checksum(checks, f"tap {name}{remark}", stages[name], case.taps[name])
            remark = remark or ("" if agrees else f", first to diverge: {name},")
    return remark


def conditioning(case: ModelCase, denoiser: DynamiCrafterUNet) -> Conditioning:
    """Arrange a case's inputs; without a frame rate the published default is every sample's."""
    latents, context = case.input("x"), case.input("context")
    if case.inputs.get("fs") is not None:
        frame_rate = case.input("fs").float()
    else:
        frame_rate = torch.full(latents.shape[:1], float(case.hyper_parameters["unet"]["default_fs"]))
    return Conditioning(
        image_latents=latents[:, denoiser.latent_channels :],
        text_tokens=context[:, :TEXT_TOKENS],
        image_tokens=tokens_of_every_frame(context[:, TEXT_TOKENS:], latents.shape[2]),
        frame_rate=frame_rate,
    )


def tokens_of_every_frame(image_tokens: Tensor, frames: int) -> Tensor:
    """Repeat the image tokens that the published denoiser shows to all frames; keep those it deals out to them."""
    if image_tokens.shape[1] == IMAGE_TOKENS * frames:
        return image_tokens
    return repeat(image_tokens, "b n c -> b (f n) c", f=frames)


@contextmanager
def stage_outputs(denoiser: DynamiCrafterUNet) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of all stages by their published names, in the order of the forward pass."""
    first = denoiser.encoder[0]
    places: dict[str, nn.Module] = {"input_blocks.0": first.get_submodule("convolution"), "init_attn": first}
    places |= {f"input_blocks.{n}": stage for n, stage in enumerate(denoiser.encoder) if n > 0}
    places |= {"middle_block": denoiser.middle}
    places |= {f"output_blocks.{n}": stage for n, stage in enumerate(denoiser.decoder)}
    outputs: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, given, output: outputs.update({name: output})

    handles = [module.register_forward_hook(keeper(name)) for name, module in places.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
