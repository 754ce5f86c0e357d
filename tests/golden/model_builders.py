"""Builds our modules from the hyper-parameters of a published case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einops import repeat

from cami2v.backbones.dynamicrafter.projector import Resampler
from cami2v.backbones.dynamicrafter.unet import DynamiCrafterUNet
from cami2v.batch import Conditioning
from cami2v.camera_control.base import BlockSite, CameraAdapter, CameraControl
from cami2v.camera_control.cameractrl import CameraCtrl
from cami2v.camera_control.cami2v import CamI2V
from cami2v.camera_control.motionctrl import MotionCtrl
from cami2v.camera_control.none import NoCameraControl
from cami2v.camera_control.pose_encoder import PoseEncoder
from cami2v.camera_control.realcam_i2v import RealCamI2V
from tests.golden.model_cases import ModelCase

LEVELS = (1, 2, 4, 8)
TEXT_TOKENS = 77
QUERIES_PER_FRAME = 16


def build_unet(
    settings: dict[str, Any], adapter_for: Callable[[BlockSite], CameraAdapter | None] = lambda site: None
) -> DynamiCrafterUNet:
    return DynamiCrafterUNet(
        latent_channels=settings["out_channels"],
        widths=[multiplier * settings["model_channels"] for multiplier in settings["channel_mult"]],
        residual_blocks=settings["num_res_blocks"],
        attention_downsamples=settings["attention_resolutions"],
        head_width=settings["num_head_channels"],
        transformer_depth=settings["transformer_depth"],
        context_width=settings["context_dim"],
        dropout=settings["dropout"],
        temporal_dropout=0.1,
        frames=settings["temporal_length"],
        learnable_image_scale=settings["image_cross_attention_scale_learnable"],
        initial_attention=settings["addition_attention"],
        activation_checkpointing=False,
        adapter_for=adapter_for,
    )


def build_pose_encoder(settings: dict[str, Any]) -> PoseEncoder:
    return PoseEncoder(
        downscale=settings["downscale_factor"],
        widths=settings["channels"],
        residual_blocks=settings["nums_rb"],
        num_heads=settings["temporal_attention_nhead"],
        max_frames=settings["temporal_position_encoding_max_len"],
        kernel_size=settings["ksize"],
        compression=settings["compression_factor"],
        strided_downsample=settings["use_conv"],
        skip_convolution=not settings["sk"],
    )


def build_camera_control(kind: str, settings: dict[str, Any], trace_scale: float = 1.0) -> CameraControl:
    if kind == "unet_plain":
        return NoCameraControl()
    if kind == "motionctrl":
        return MotionCtrl(trace_scale=trace_scale)
    if kind == "cameractrl":
        return CameraCtrl(pose_encoder=build_pose_encoder(settings["pose_encoder"]), trace_scale=trace_scale)
    epipolar = settings["epipolar"]
    masked: list[int] = []
    if epipolar is not None and not epipolar.get("is_3d_full_attn", False):
        masked = epipolar["attention_resolution"]
    epipolar = epipolar or {}
    method = {"cami2v": CamI2V, "realcam": RealCamI2V}[kind]
    return method(
        pose_encoder=build_pose_encoder(settings["pose_encoder"]) if settings["pose_encoder"] else None,
        insertion="main_branch" if settings["add_type"] == "add_to_main_branch" else "temporal_attention",
        attention_levels=masked,
        # The published network attends without a mask wherever it has none.
        full_attention_levels=[level for level in LEVELS if level not in masked] if epipolar else [],
        register_tokens=epipolar.get("num_register_tokens", 0),
        perturb_same_frame=epipolar.get("add_small_perturbation_on_zero_T", False),
        trace_scale=trace_scale,
        latent_downsample=8,
        keys="condition_frame" if epipolar.get("only_on_cond_frame", False) else "all_frames",
        head_compression=epipolar.get("compression_factor", 1),
    )


def build_resampler(settings: dict[str, Any]) -> Resampler:
    return Resampler(
        input_width=settings["embedding_dim"],
        width=settings["dim"],
        output_width=settings["output_dim"],
        depth=settings["depth"],
        num_heads=settings["heads"],
        head_width=settings["dim_head"],
        queries_per_frame=settings["num_queries"],
        frames=settings["video_length"] or 1,
        expansion=settings["ff_mult"],
    )


def conditioning(case: ModelCase) -> Conditioning:
    """Arrange a U-Net case's inputs; tokens that the published network shares among the frames are repeated."""
    latents, context = case.input("x"), case.input("context")
    frames = latents.shape[2]
    image_tokens = context[:, TEXT_TOKENS:]
    if image_tokens.shape[1] != QUERIES_PER_FRAME * frames:
        image_tokens = repeat(image_tokens, "b n c -> b (f n) c", f=frames)
    if "fs" in case.index["inputs"]:
        frame_rate = case.input("fs").float()
    else:
        frame_rate = latents.new_full(latents.shape[:1], case.hyper_parameters["unet"]["default_fs"])
    return Conditioning(
        image_latents=latents[:, 4:],
        text_tokens=context[:, :TEXT_TOKENS],
        image_tokens=image_tokens,
        frame_rate=frame_rate,
    )
