"""Cases of the training loss and of condition dropping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cami2v.backbones.base import VideoBackbone
from cami2v.batch import Cameras, ClipBatch, Conditioning
from cami2v.camera_control.base import CameraCondition
from cami2v.camera_control.none import NoCameraControl
from cami2v.diffusion.condition_drop import drop_masks
from cami2v.diffusion.loss import LossKind, diffusion_loss, vlb_weights, weighted_loss
from cami2v.diffusion.prediction import Prediction, diffuse
from cami2v.draws import Draws
from cami2v.encoders.base import FirstStage, ImageEncoder, TextEncoder
from cami2v.model import VideoDiffusion
from tools.parity.cases import Case, normal
from tools.parity.checks import Checks
from tools.parity.published_schedule import published_schedule
from tools.parity.toy_denoiser import read_toy_denoiser


def p_losses(case: Case) -> Checks:
    """Compare every logged quantity of every row: noise offset, learned log variance and variational bound included."""
    inputs = _loss_inputs(case)
    t = torch.tensor(case.parameters["t"])
    toy = read_toy_denoiser(case)
    checks, tolerance = Checks(), case.stated_tolerance(1e-5)
    for number, row in enumerate(case.parameters["rows"]):
        base = re.search(r"dynamic rescale base ([\d.]+)", row.get("via", ""))
        schedule = published_schedule(dynamic_rescale_base=float(base[1]) if base else None)
        prediction = Prediction(row["parameterization"])
        # The published code draws the offset before the noise itself; listed numbers have no order.
        noise = inputs["noise"] + row.get("noise_strength", 0) * inputs["offset"]
        noisy = diffuse(inputs["x0"], noise, t, schedule=schedule, prediction=prediction)
        output = toy(noisy.noisy, t, inputs["cat"], inputs["ctx"])
        ours = _logged(row, diffusion_loss(output, noisy.target, kind=_kind(row)), t, vlb_weights(schedule, prediction))
        for name, theirs in row.items():
            if name == "loss" or name == "logvar" or name.startswith("train/"):
                checks.at_most(f"row {number} {name}", abs(ours[name].item() - theirs) / abs(theirs), tolerance)
    return checks


def _logged(row: dict[str, Any], per_sample: Tensor, t: Tensor, weights: Tensor) -> dict[str, Tensor]:
    log_variance = torch.full_like(weights, row.get("logvar_init", 0.0))
    common = {"log_variance": log_variance, "vlb_weights": weights}
    total = weighted_loss(
        per_sample,
        t,
        **common,
        simple_weight=row.get("l_simple_weight", 1.0),
        vlb_weight=row.get("original_elbo_weight", 0.0),
    )
    return {
        "loss": total,
        "logvar": log_variance.mean(),
        "train/loss": total,
        "train/loss_simple": per_sample.mean(),
        "train/loss_gamma": weighted_loss(per_sample, t, **common, simple_weight=1.0, vlb_weight=0.0),
        "train/loss_vlb": weighted_loss(per_sample, t, **common, simple_weight=0.0, vlb_weight=1.0),
    }


def _kind(row: dict[str, Any]) -> LossKind:
    return "l1" if row["loss_type"] == "l1" else "l2"


def _loss_inputs(case: Case) -> dict[str, Tensor]:
    latents, offset = (_shape(text) for text in case.stated(r"noise \(([\d,]+)\), offset \(([\d,]+)\)"))
    (context,) = (_shape(text) for text in case.stated(r"c_crossattn \(([\d,]+)\)"))
    shapes = {"x0": latents, "cat": latents, "noise": latents, "offset": offset, "ctx": context}
    return {name: normal(f"loss/{case.split}/{name}", shape) for name, shape in shapes.items()}


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def condition_drop(case: Case) -> Checks:
    """Compare what is dropped for each uniform number, alone and inside the model; its latents are never dropped."""
    parameters = case.parameters
    (probability,) = (float(each) for each in case.stated(r"uncond_prob p=([\d.]+)"))
    uniform = torch.tensor(parameters["u"], dtype=torch.float32)
    checks = Checks()
    for name, ours in zip(("text_dropped", "image_emb_dropped"), drop_masks(uniform, probability), strict=True):
        checks.equal(name, ours.tolist(), parameters[name])
    for name in ("concat_first", "concat_condidx"):
        # Every frame shows its number, counted from 1.
        condition_frame = torch.tensor(parameters[name]).long() - 1
        frames = int(max(parameters["concat_condidx"]))
        conditioning = _encode(uniform, probability, condition_frame, frames)
        checks.equal(f"{name}: latents", conditioning.image_latents.amax(dim=(1, 2, 3, 4)).tolist(), parameters[name])
        checks.equal(
            f"{name}: one image",
            bool((conditioning.image_latents == conditioning.image_latents[:, :1, :1]).all()),
            True,
        )
        no_text = (conditioning.text_tokens == 0).all(-1).all(-1).tolist()
        checks.equal(f"{name}: text", no_text, parameters["text_dropped"])
        no_image = (conditioning.image_tokens == 0).all(-1).all(-1).tolist()
        checks.equal(f"{name}: image embedding", no_image, parameters["image_emb_dropped"])
    return checks


def _encode(uniform: Tensor, probability: float, condition_frame: Tensor, frames: int) -> Conditioning:
    batch = len(uniform)
    model = VideoDiffusion(
        first_stage=_Pixels(),
        text_encoder=_Length(),
        image_encoder=_Mean(),
        image_projector=_First(),
        camera=NoCameraControl(),
        backbone=_NoBackbone(),
        schedule=published_schedule(),
        prediction=Prediction.EPS,
        frame_rate="stride",
        condition_drop_probability=probability,
        random_condition_frame=True,
    )
    video = torch.arange(1.0, frames + 1)[None, None, :, None, None].expand(batch, 3, frames, 2, 2)
    clips = ClipBatch(
        clip_ids=tuple(str(number) for number in range(batch)),
        captions=("caption",) * batch,
        seeds=torch.arange(batch),
        video=video.clone(),
        cameras=Cameras(
            world_to_camera=torch.eye(4, dtype=torch.float64)[:3].repeat(batch, frames, 1, 1),
            intrinsics_pixels=torch.ones(batch, frames, 4, dtype=torch.float64),
            translation_scale=torch.ones(batch, frames, dtype=torch.float64),
            height=2,
            width=2,
        ),
        frame_indices=torch.arange(frames).repeat(batch, 1),
        frame_stride=torch.ones(batch, dtype=torch.int64),
        frames_per_second=torch.ones(batch),
    )
    draws = _ListedUniform(clips.seeds, uniform)
    return model.encode(clips, draws, condition_frame=condition_frame, drop=True).conditioning


class _ListedUniform(Draws):
    def __init__(self, seeds: Tensor, uniform: Tensor) -> None:
        super().__init__(seeds)
        self._uniform = uniform

    def uniform(self, purpose: str) -> Tensor:
        return self._uniform


class _Pixels(FirstStage):
    def encode(self, video: Tensor, draws: Draws) -> Tensor:
        return video

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class _Length(TextEncoder):
    def encode(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([[[float(len(caption))]] for caption in captions])


class _Mean(ImageEncoder):
    def encode(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None, None]


class _First(nn.Module):
    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        return tokens


class _NoBackbone(VideoBackbone):
    def forward(
        self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning, camera: CameraCondition | None
    ) -> Tensor:
        return noisy_latents
