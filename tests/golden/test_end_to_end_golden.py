"""Whole models against the published ones: clips and captions to latents, conditions, loss and gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.checkpoints.released_names import released_names
from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.encoders.autoencoder_kl import AutoencoderKLFirstStage
from cami2v.encoders.openclip_image import OpenCLIPImageEncoder
from cami2v.encoders.openclip_text import OpenCLIPTextEncoder
from cami2v.model import VideoDiffusion
from tests.golden.model_builders import build_camera_control, build_resampler, build_unet
from tests.golden.model_cases import ModelCase, StoredPerturbation, assert_close, cameras, fill, model_case

KINDS = {
    "e2e_dynamicrafter": "unet_plain",
    "e2e_motionctrl": "motionctrl",
    "e2e_cameractrl": "cameractrl",
    "e2e_cami2v": "cami2v",
    "e2e_cami2v_512style": "cami2v",
    "e2e_realcam": "realcam",
}
# The masks are rebuilt inside, where single cells may fall on the other side of their threshold.
PREDICTION, LOSS, GRADIENT = 1e-3, 1e-4, 1e-2


class StoredDraws(StoredPerturbation):
    """Returns a case's stored numbers instead of draws."""

    def __init__(self, case: ModelCase) -> None:
        super().__init__(case.hyper_parameters["geometry"])
        self.case = case

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        if purpose == "posterior":
            return rearrange(self.case.input("posterior_noise"), "(b f) c h w -> b f c h w", f=shape[0])
        if purpose == "noise":
            return self.case.input("noise")
        return super().normal(purpose, shape)

    def integers(self, purpose: str, high: int) -> Tensor:
        assert purpose == "timestep"
        return self.case.input("timesteps")


@pytest.mark.parametrize("name", KINDS)
def test_whole_model(name: str) -> None:
    case = model_case(name)
    model = build_model(case).eval()
    trainable = model.select_trainable("camera") if name != "e2e_dynamicrafter" else []
    assert fill(model, ours="", released="") == parameters_in_use(case, model)
    released = released_names(name for name, _ in model.named_parameters())
    assert {released[ours] for ours in trainable} == set(case.index["trainable"])

    draws = StoredDraws(case)
    batch = clip_batch(case)
    condition_frame = torch.tensor(case.index["inputs"]["cond_frame_index"])
    clips = model.encode(batch, draws, condition_frame=condition_frame, drop=False)
    assert_close(clips.latents, case.output("z"))
    assert_close(clips.conditioning.image_latents[:, :, :1], case.output("c_concat_t0"))
    assert_close(clips.conditioning.image_tokens, case.output("c_crossattn_img"))

    condition = model.camera.encode(batch.cameras, condition_frame=condition_frame, draws=draws)
    with torch.no_grad():
        applied = model.backbone(case.input("x_noisy"), case.input("timesteps"), clips.conditioning, condition)
    assert_close(applied, case.output("apply_model"), relative=PREDICTION, maximum=10 * PREDICTION)

    noisy = model.add_noise(clips, draws)
    predicted = model.backbone(noisy.noisy, noisy.timesteps, clips.conditioning, condition)
    loss = (predicted - noisy.target).square().mean()
    assert loss.item() == pytest.approx(case.index["loss"], rel=LOSS)
    if trainable:
        loss.backward()
        norms = {released[ours]: model.get_parameter(ours).grad for ours in trainable}
        for parameter, (norm, _) in case.index["grads"].items():
            gradient = norms[parameter]
            assert gradient is not None
            assert gradient.norm().item() == pytest.approx(norm, rel=GRADIENT), parameter


def build_model(case: ModelCase) -> VideoDiffusion:
    settings = case.hyper_parameters
    text, vision = settings["clip_model_cfg"]["text_cfg"], settings["clip_model_cfg"]["vision_cfg"]
    autoencoder = settings["ddconfig"]
    control = build_camera_control(KINDS[case.name], camera_settings(settings["camera"]))
    return VideoDiffusion(
        first_stage=AutoencoderKLFirstStage(
            channels=autoencoder["ch"],
            channel_multipliers=autoencoder["ch_mult"],
            residual_blocks=autoencoder["num_res_blocks"],
            latent_channels=autoencoder["z_channels"],
            scale=settings["scale_factor"],
        ),
        text_encoder=OpenCLIPTextEncoder(width=text["width"], num_heads=text["heads"], layers=text["layers"]),
        image_encoder=OpenCLIPImageEncoder(
            width=vision["width"],
            num_heads=vision["width"] // vision["head_width"],
            layers=vision["layers"],
            patch_size=vision["patch_size"],
        ),
        image_projector=build_resampler(settings["resampler"]),
        camera=control,
        backbone=build_unet(settings["unet"], control.adapter_for),
        schedule=NoiseSchedule(
            timesteps=settings["timesteps"],
            beta_start=settings["linear_start"],
            beta_end=settings["linear_end"],
            kind="linear",
            zero_terminal_snr=settings["rescale_betas_zero_snr"],
            dynamic_rescale_base=settings["base_scale"] if settings["use_dynamic_rescale"] else 1.0,
        ),
        prediction=Prediction(settings["parameterization"]),
        frame_rate="stride",
        condition_drop_probability=0.0,
        random_condition_frame=False,
    )


def camera_settings(published: dict[str, Any]) -> dict[str, Any]:
    """Bring the settings of a whole published model into the form of the U-Net cases."""
    pose_encoder = published.get("pose_encoder_config")
    return {
        "pose_encoder": pose_encoder and pose_encoder["params"],
        "epipolar": published.get("epipolar_config"),
        "add_type": published.get("add_type"),
    }


def clip_batch(case: ModelCase) -> ClipBatch:
    clip_cameras, _ = cameras(case.hyper_parameters["geometry"])
    if "per_frame_scale" in case.index["inputs"]:
        clip_cameras = dataclasses.replace(clip_cameras, translation_scale=case.input("per_frame_scale").double())
    video, frame_stride = case.input("video"), case.input("fs")
    batch, frames = video.shape[0], video.shape[2]
    return ClipBatch(
        clip_ids=tuple(f"clip {row}" for row in range(batch)),
        captions=tuple(case.index["inputs"]["caption"]),
        seeds=torch.arange(batch),
        video=video,
        cameras=clip_cameras,
        frame_indices=torch.arange(frames).repeat(batch, 1),
        frame_stride=frame_stride,
        frames_per_second=frame_stride.float(),
    )


def parameters_in_use(case: ModelCase, model: VideoDiffusion) -> int:
    """Count what the published module has, less the parts of CLIP that nothing reads."""
    assert isinstance(model.text_encoder, OpenCLIPTextEncoder)
    block = sum(parameter.numel() for parameter in model.text_encoder.tower.transformer.resblocks[0].parameters())
    text, vision = model.text_encoder.width, case.hyper_parameters["clip_model_cfg"]["vision_cfg"]["width"]
    embedding = case.hyper_parameters["clip_model_cfg"]["embed_dim"]
    text_head = text * embedding + 1
    left_over = 77 * text + 49408 * text + 2 * text + text_head
    vision_head = 2 * vision + vision * embedding
    return case.index["weights"]["whole_module"]["n_params"] - block - text_head - left_over - vision_head
