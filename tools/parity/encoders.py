"""The autoencoder and both CLIP towers against the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cami2v.draws import Draws
from cami2v.encoders.autoencoder_kl import AutoencoderKLFirstStage
from cami2v.encoders.openclip_image import IMAGE_SIZE, OpenCLIPImageEncoder, preprocess
from cami2v.encoders.openclip_text import CONTEXT_LENGTH, VOCABULARY, OpenCLIPTextEncoder
from tools.parity.checks import Checks
from tools.parity.network_cases import ModelCase, compare_output, compare_tap
from tools.parity.published_settings import insist
from tools.parity.weights import fill, give_weights


@torch.no_grad()
def autoencoder(case: ModelCase) -> Checks:
    """Compare the posterior of images, a sample of it, and the decoding of latents."""
    checks = Checks()
    settings = case.hyper_parameters
    insist("autoencoder", settings, {"embed_dim": settings["ddconfig"]["z_channels"]})
    first_stage = build_first_stage(settings["ddconfig"], scale=1.0)
    give_weights(checks, case, "vae", first_stage)
    images = case.input("x")
    posterior = first_stage.autoencoder.encode(images).latent_dist
    found = {
        "moments": posterior.parameters,
        "mean": posterior.mean,
        "logvar": posterior.logvar,
        "mode": posterior.mode(),
        "sample": first_stage.encode(images[:, :, None], PosteriorNoise(case))[:, :, 0],
        "decode": first_stage.decode(case.input("z")[:, :, None])[:, :, 0],
    }
    for name, ours in found.items():
        if name in case.outputs:
            compare_output(checks, case, name, ours)
    return checks


@torch.no_grad()
def text(case: ModelCase) -> Checks:
    """Compare tokens and embeddings of captions."""
    checks = Checks()
    settings = case.hyper_parameters["model_cfg"]["text_cfg"]
    captions = case.inputs["texts"]
    encoder = build_text_encoder(settings)
    give_weights(checks, case, "text", encoder)
    checks.equal("tokens", encoder.tokenizer(captions).long(), case.input("tokens").long())
    compare_output(checks, case, "penultimate", encoder.encode(captions))
    if "last" in case.outputs:
        # Nothing of ours reads the last block: a tower with one block more has it.
        longer = build_text_encoder({**settings, "layers": settings["layers"] + 1})
        fill("text", longer)
        compare_output(checks, case, "last", longer.encode(captions))
    return checks


@torch.no_grad()
def image(case: ModelCase) -> Checks:
    """Compare preprocessed pixels and tokens of images."""
    checks = Checks()
    encoder = build_image_encoder(case.hyper_parameters["model_cfg"]["vision_cfg"])
    give_weights(checks, case, "image", encoder)
    images = case.input("image")
    pixels = preprocess(images)
    compare_tap(checks, case, "preprocessed_full", pixels)
    samples, _, height, width = case.outputs["preprocessed_sub"]["shape"]
    spread = pixels[:samples, :, :: IMAGE_SIZE // height, :: IMAGE_SIZE // width]
    compare_output(checks, case, "preprocessed_sub", spread)
    samples, _, height, width = case.outputs["preprocessed_corner"]["shape"]
    compare_output(checks, case, "preprocessed_corner", pixels[:samples, :, -height:, -width:])
    compare_output(checks, case, "tokens", encoder.encode(images))
    return checks


class PosteriorNoise(Draws):
    """Returns the case's noise, one frame per sample, instead of a draw."""

    def __init__(self, case: ModelCase) -> None:
        self.case = case

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Return the noise of the posterior."""
        assert purpose == "posterior", purpose
        return self.case.input("noise")[:, None]


def build_first_stage(settings: Mapping[str, Any], *, scale: float) -> AutoencoderKLFirstStage:
    """Build the autoencoder."""
    insist("ddconfig", settings, {"double_z": True, "in_channels": 3, "out_ch": 3, "attn_resolutions": []})
    return AutoencoderKLFirstStage(
        channels=settings["ch"],
        channel_multipliers=settings["ch_mult"],
        residual_blocks=settings["num_res_blocks"],
        latent_channels=settings["z_channels"],
        scale=scale,
    )


def build_text_encoder(settings: Mapping[str, Any]) -> OpenCLIPTextEncoder:
    """Build the text tower."""
    insist("text_cfg", settings, {"context_length": CONTEXT_LENGTH, "vocab_size": VOCABULARY})
    return OpenCLIPTextEncoder(width=settings["width"], num_heads=settings["heads"], layers=settings["layers"])


def build_image_encoder(settings: Mapping[str, Any]) -> OpenCLIPImageEncoder:
    """Build the image tower."""
    insist("vision_cfg", settings, {"image_size": IMAGE_SIZE})
    return OpenCLIPImageEncoder(
        width=settings["width"],
        num_heads=settings["width"] // settings["head_width"],
        layers=settings["layers"],
        patch_size=settings["patch_size"],
    )
