"""Pose encoder, resampler, autoencoder and CLIP towers against the published outputs."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

from cami2v.draws import Draws
from cami2v.encoders.autoencoder_kl import AutoencoderKLFirstStage
from cami2v.encoders.openclip_image import OpenCLIPImageEncoder, preprocess
from cami2v.encoders.openclip_text import OpenCLIPTextEncoder
from tests.golden.model_builders import build_pose_encoder, build_resampler
from tests.golden.model_cases import ModelCase, assert_close, assert_same_names, fill, model_case, stored_keys


@pytest.mark.parametrize("name", ["pose_encoder_real", "pose_encoder_alt", "pose_encoder_sk_false"])
def test_pose_features(name: str) -> None:
    case = model_case(name)
    encoder = build_pose_encoder(case.hyper_parameters["pose_encoder"])
    fill(encoder, ours="camera.pose_encoder.", released="pose_encoder.")
    keys = stored_keys(name, "pose_encoder")
    assert_same_names(encoder, ours="camera.pose_encoder.", released="pose_encoder.", keys=keys)
    with torch.no_grad():
        features = encoder.encode(case.input("plucker"))
    assert len(features.levels) == len(case.index["outputs"])
    for level in range(len(features.levels)):
        feature = rearrange(features.at(2**level), "b h w f c -> (b f) c h w")
        assert_close(feature, case.output(f"feature_{level}"))


@pytest.mark.parametrize("name", ["resampler_video", "resampler_image"])
def test_image_projector(name: str) -> None:
    case = model_case(name)
    settings = case.hyper_parameters["resampler"]
    resampler = build_resampler(settings)
    fill(resampler, ours="image_projector.", released="image_proj_model.")
    keys = stored_keys(name, "resampler")
    assert_same_names(resampler, ours="image_projector.", released="image_proj_model.", keys=keys)
    with torch.no_grad():
        assert_close(resampler(case.input("x"), settings["video_length"] or 1), case.output("y"))


class StoredPosteriorNoise(Draws):
    """Returns the case's noise, for one frame per sample, instead of a draw."""

    def __init__(self, case: ModelCase) -> None:
        self.case = case

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return self.case.input("noise")[:, None]


def test_autoencoder() -> None:
    case = model_case("vae_tiny")
    settings = case.hyper_parameters["ddconfig"]
    first_stage = AutoencoderKLFirstStage(
        channels=settings["ch"],
        channel_multipliers=settings["ch_mult"],
        residual_blocks=settings["num_res_blocks"],
        latent_channels=settings["z_channels"],
        scale=0.18215,
        frames_at_once=1,
    )
    prefixes = {"ours": "first_stage.", "released": "first_stage_model."}
    fill(first_stage, **prefixes)
    assert_same_names(first_stage, **prefixes, keys=stored_keys("vae_tiny", "vae"))
    latents = first_stage.encode(case.input("x")[:, :, None], StoredPosteriorNoise(case))
    assert_close(latents[:, :, 0] / 0.18215, case.output("sample"))
    decoded = first_stage.decode(case.input("z")[:, :, None] * 0.18215)
    assert_close(decoded[:, :, 0], case.output("decode"))


def test_text_tower() -> None:
    case = model_case("clip_text")
    settings = case.hyper_parameters["model_cfg"]["text_cfg"]
    encoder = OpenCLIPTextEncoder(width=settings["width"], num_heads=settings["heads"], layers=settings["layers"])
    fill(encoder, ours="text_encoder.", released="cond_stage_model.")
    keys = stored_keys("clip_text", "text")
    assert_same_names(encoder, ours="text_encoder.", released="cond_stage_model.", keys=keys)
    captions = case.index["inputs"]["texts"]
    assert_close(encoder.encode(captions), case.output("penultimate"))
    assert encoder.tokenizer(captions).tolist() == case.input("tokens").tolist()


@pytest.mark.parametrize("name", ["clip_image0", "clip_image1", "clip_image2"])
def test_image_tower(name: str) -> None:
    case = model_case(name)
    settings = case.hyper_parameters["model_cfg"]["vision_cfg"]
    encoder = OpenCLIPImageEncoder(
        width=settings["width"],
        num_heads=settings["width"] // settings["head_width"],
        layers=settings["layers"],
        patch_size=settings["patch_size"],
    )
    fill(encoder, ours="image_encoder.", released="embedder.")
    keys = stored_keys(name, "image")
    assert_same_names(encoder, ours="image_encoder.", released="embedder.", keys=keys)
    pixels = preprocess(case.input("image"))
    assert_close(pixels[:1, :, ::4, ::4], case.output("preprocessed_sub"))
    assert_close(pixels[:1, :, -8:, -8:], case.output("preprocessed_corner"))
    assert_close(encoder.encode(case.input("image")), case.output("tokens"))
