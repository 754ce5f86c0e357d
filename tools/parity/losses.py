"""Cases of the training loss and of condition dropping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cami2v.backbones.base import VideoBackbone
from cami2v.batch import Cameras, ClipBatch, Conditioning, LatentBatch
from cami2v.camera_control.base import CameraCondition
from cami2v.camera_control.none import NoCameraControl
from cami2v.diffusion.condition_drop import drop_masks
from cami2v.diffusion.objective import TrainingObjective
from cami2v.diffusion.prediction import Prediction
from cami2v.draws import Draws
from cami2v.encoders.base import FirstStage, ImageEncoder, TextEncoder
from cami2v.model import VideoDiffusion
from tools.parity.cases import Case, normal
from tools.parity.checks import Checks
from tools.parity.published_schedule import TIMESTEPS, published_schedule
from tools.parity.stored_cameras import cameras_of
from tools.parity.toy_denoiser import read_toy_denoiser

SETTINGS = {
    "parameterization", "loss_type", "original_elbo_weight", "l_simple_weight", "logvar_init", "learn_logvar",
    "noise_strength", "via",
}  # fmt: skip
"""What a row of losses chooses; everything else in it was measured."""


def p_losses(case: Case) -> Checks:
    """Compare every logged quantity of every row: noise offset, learned log variance and variational bound included."""
    inputs = _loss_inputs(case)
    t = torch.tensor(case.parameters["t"])
    toy = read_toy_denoiser(case)
    checks, tolerance = Checks(), case.stated_tolerance(1e-5)
    for number, row in enumerate(case.parameters["rows"]):
        base = re.search(r"dynamic rescale base ([\d.]+)", row.get("via", ""))
        model = _model(
            prediction=Prediction(row["parameterization"]),
            schedule=published_schedule(dynamic_rescale_base=float(base[1]) if base else None),
            objective=_objective(row),
        )
        draws = _ListedDraws(len(t), {"noise": inputs["noise"], "noise_offset": inputs["offset"], "timestep": t})
        noisy = model.add_noise(_latents(inputs["x0"]), draws)
        output = toy(noisy.noisy, t, inputs["cat"], inputs["ctx"])
        ours = _logged(row, model, model.objective.per_sample(output, noisy.target), t)
        for name in row.keys() - SETTINGS:
            error = abs(ours[name].item() - row[name]) / abs(row[name])
            checks.at_most(f"row {number} {name}", error, tolerance)
    return checks


def _objective(row: dict[str, Any], **changes: Any) -> TrainingObjective:
    options = {
        "kind": row["loss_type"],
        "noise_offset": float(row.get("noise_strength", 0)),
        "simple_weight": row.get("l_simple_weight", 1.0),
        "vlb_weight": row.get("original_elbo_weight", 0.0),
        "log_variance": row.get("logvar_init", 0.0),
        "learn_log_variance": row.get("learn_logvar", False),
        "timesteps": TIMESTEPS,
    }
    return TrainingObjective(**(options | changes))


def _logged(row: dict[str, Any], model: VideoDiffusion, per_sample: Tensor, t: Tensor) -> dict[str, Tensor]:
    def combined(objective: TrainingObjective) -> Tensor:
        return objective.combine(per_sample, t, schedule=model.schedule, prediction=model.prediction)

    total = combined(model.objective)
    logged = {
        "loss": total,
        "train/loss": total,
        "train/loss_simple": per_sample.mean(),
        "train/loss_gamma": combined(_objective(row, simple_weight=1.0, vlb_weight=0.0)),
        "train/loss_vlb": combined(_objective(row, simple_weight=0.0, vlb_weight=1.0)),
    }
    if model.objective.log_variance is not None:
        logged["logvar"] = model.objective.log_variance.mean()
    return logged


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
    model = _model(condition_drop_probability=probability)
    video = torch.arange(1.0, frames + 1)[None, None, :, None, None].expand(batch, 3, frames, 2, 2)
    clips = ClipBatch(
        clip_ids=tuple(str(number) for number in range(batch)),
        captions=("caption",) * batch,
        seeds=torch.arange(batch),
        video=video.clone(),
        cameras=_cameras(batch, frames),
        frame_indices=torch.arange(frames).repeat(batch, 1),
        frame_stride=torch.ones(batch, dtype=torch.int64),
        frames_per_second=torch.ones(batch),
    )
    draws = _ListedDraws(batch, {"condition_drop": uniform})
    return model.encode(clips, draws, condition_frame=condition_frame, drop=True).conditioning


def _latents(clean: Tensor) -> LatentBatch:
    batch, frames = clean.shape[0], clean.shape[2]
    nothing = torch.zeros(batch, 1, 1)
    return LatentBatch(
        seeds=torch.arange(batch),
        latents=clean,
        conditioning=Conditioning(
            image_latents=clean, text_tokens=nothing, image_tokens=nothing, frame_rate=torch.ones(batch)
        ),
        cameras=_cameras(batch, frames),
        condition_frame=torch.zeros(batch, dtype=torch.int64),
    )


def _cameras(batch: int, frames: int) -> Cameras:
    return cameras_of(torch.eye(4).repeat(batch, frames, 1, 1))


def _model(**changes: Any) -> VideoDiffusion:
    """Make the model around a denoiser and encoders that are not there."""
    options: dict[str, Any] = {
        "schedule": published_schedule(), "prediction": Prediction.EPS, "condition_drop_probability": 0.0,
    }  # fmt: skip
    return VideoDiffusion(
        first_stage=_Pixels(),
        text_encoder=_Length(),
        image_encoder=_Mean(),
        image_projector=_First(),
        camera=NoCameraControl(),
        backbone=_NoBackbone(),
        frame_rate="stride",
        random_condition_frame=True,
        **(options | changes),
    )


class _ListedDraws(Draws):
    """Numbers listed by purpose."""

    def __init__(self, batch: int, listed: dict[str, Tensor]) -> None:
        super().__init__(torch.arange(batch))
        self._listed = listed

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        assert tuple(self._listed[purpose].shape[1:]) == shape
        return self._listed[purpose]

    def uniform(self, purpose: str) -> Tensor:
        return self._listed[purpose]

    def integers(self, purpose: str, high: int) -> Tensor:
        return self._listed[purpose]


class _Pixels(FirstStage):
    def moments(self, video: Tensor) -> Tensor:
        return video

    def sample(self, moments: Tensor, draws: Draws) -> Tensor:
        return moments

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
