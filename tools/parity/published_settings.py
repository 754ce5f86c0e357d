"""Builds our modules from hyper-parameters under their published names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cami2v.backbones.dynamicrafter.projector import Resampler
from cami2v.backbones.dynamicrafter.unet import DynamiCrafterUNet
from cami2v.camera_control.base import BlockSite, CameraAdapter, CameraControl
from cami2v.camera_control.cameractrl import CameraCtrl
from cami2v.camera_control.cami2v import CamI2V
from cami2v.camera_control.motionctrl import POSE_NUMBERS, MotionCtrl
from cami2v.camera_control.none import NoCameraControl
from cami2v.camera_control.pose_encoder import PoseEncoder
from cami2v.camera_control.realcam_i2v import RealCamI2V
from cami2v.geometry.epipolar import EpipolarOptions

PIXELS_PER_LATENT = 8
"""Fixed in the published mask builder: a mask of downsample r belongs to cells of 8 * r pixels."""

MASK_OPTIONS = {
    "epipolar_hybrid_attention": "hybrid",
    "epipolar_hybrid_attention_v2": "hybrid_v2",
    "only_self_pixel_on_current_frame": "only_self_pixel_on_current_frame",
    "current_frame_as_register_token": "current_frame_as_register_token",
}
PERTURB = "add_small_perturbation_on_zero_T"

FIXED_UNET = {
    "use_linear": True,
    "temporal_conv": True,
    "temporal_attention": True,
    "temporal_selfatt_only": True,
    "use_relative_position": False,
    "use_causal_attention": False,
    "image_cross_attention": True,
    "fs_condition": True,
}
"""Published settings that no released model varies, hence no settings of ours."""

FIXED_POSE_ENCODER = {"attention_block_types": ["Temporal_Self"], "temporal_position_encoding": True}


def insist(part: str, settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise ValueError where a setting differs from the one value that we implement."""
    for name, value in fixed.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{part}.{name}: got {settings[name]!r}; no released model has another than {value!r}")


def build_unet(
    settings: Mapping[str, Any], adapter_for: Callable[[BlockSite], CameraAdapter | None]
) -> DynamiCrafterUNet:
    """Build the denoiser."""
    insist("unet", settings, {**FIXED_UNET, "in_channels": 2 * settings["out_channels"]})
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


def build_pose_encoder(settings: Mapping[str, Any]) -> PoseEncoder:
    """Build the encoder of Pluecker maps."""
    insist("pose_encoder", settings, {**FIXED_POSE_ENCODER, "cin": 6 * settings["downscale_factor"] ** 2})
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


def build_camera_control(kind: str, settings: Mapping[str, Any], *, levels: int, trace_scale: float) -> CameraControl:
    """Build the method `kind` of `CONTROLS` for a denoiser with that many levels."""
    return CONTROLS[kind](settings, [2**level for level in range(levels)], trace_scale)


def mask_options(flags: Mapping[str, Any]) -> EpipolarOptions:
    """Translate the options of the published mask builder, its use of one frame's intrinsics included."""
    chosen = {ours: True for published, ours in MASK_OPTIONS.items() if flags.get(published, False)}
    return EpipolarOptions(key_intrinsics_on_both_sides=True, **chosen)


def build_resampler(settings: Mapping[str, Any]) -> Resampler:
    """Build the image projector; without a `video_length` its queries are those of one frame."""
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


def _none(settings: Mapping[str, Any], levels: list[int], trace_scale: float) -> CameraControl:
    return NoCameraControl()


def _motionctrl(settings: Mapping[str, Any], levels: list[int], trace_scale: float) -> CameraControl:
    insist("camera", settings, {"pose_dim": POSE_NUMBERS})
    return MotionCtrl(trace_scale=trace_scale)


def _cameractrl(settings: Mapping[str, Any], levels: list[int], trace_scale: float) -> CameraControl:
    return CameraCtrl(pose_encoder=build_pose_encoder(settings["pose_encoder"]), trace_scale=trace_scale)


def _epipolar(method: type[CamI2V]) -> Callable[[Mapping[str, Any], list[int], float], CameraControl]:
    def build(settings: Mapping[str, Any], levels: list[int], trace_scale: float) -> CameraControl:
        epipolar = settings["epipolar"] or {}
        published = [] if epipolar.get("is_3d_full_attn", False) else epipolar.get("attention_resolution", [])
        masked = [level for level in levels if level in published]
        return method(
            pose_encoder=build_pose_encoder(settings["pose_encoder"]) if settings["pose_encoder"] else None,
            insertion="main_branch" if settings["add_type"] == "add_to_main_branch" else "temporal_attention",
            attention_levels=masked,
            # The published network attends without a mask wherever it has none.
            full_attention_levels=[level for level in levels if level not in masked] if epipolar else [],
            register_tokens=epipolar.get("num_register_tokens", 0),
            perturb_same_frame=epipolar.get(PERTURB, False),
            trace_scale=trace_scale,
            latent_downsample=PIXELS_PER_LATENT,
            keys="condition_frame" if epipolar.get("only_on_cond_frame", False) else "all_frames",
            head_compression=epipolar.get("compression_factor", 1),
            mask_options=mask_options(epipolar),
        )

    return build


CONTROLS: dict[str, Callable[[Mapping[str, Any], list[int], float], CameraControl]] = {
    "unet_plain": _none,
    "motionctrl": _motionctrl,
    "cameractrl": _cameractrl,
    "cami2v": _epipolar(CamI2V),
    "realcam_i2v": _epipolar(RealCamI2V),
}
"""By the `kind` of a case; `realcam_i2v` occurs in whole models only."""
