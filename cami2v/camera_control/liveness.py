"""Is the camera alive? Whether the denoiser's prediction depends on the trajectory at all.

A camera branch whose weights were never loaded, whose signal is lost on the way or whose adapters died leaves a model
that runs, samples and scores like the uncontrolled one (CamI2V issue 14, MotionCtrl issue 36).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from cami2v.batch import Cameras, ClipBatch
from cami2v.camera_control.interventions import Comparison, comparison_trajectories
from cami2v.camera_control.none import NoCameraControl
from cami2v.diffusion.guidance import Branch
from cami2v.diffusion.prediction import diffuse
from cami2v.draws import Draws
from cami2v.model import VideoDiffusion

logger = logging.getLogger(__name__)

NOISE_LEVELS = (0.5, 0.9)
"""Where on the schedule to look: at low noise the noisy latents themselves show where the camera was."""
SMALLEST_EFFECT = 1e-4
"""A smaller relative change of the prediction cannot be seen in a video; measured in docs/camera-alive.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Settings of conf/guards."""

    camera_alive: Literal["error", "warn", "off"]
    camera_alive_step: int
    """Training judges after this many updates, and looks on until then."""

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.camera_alive_step < 1:
            raise ValueError(f"guards.camera_alive_step: got {self.camera_alive_step}, expected at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraEffect:
    """How much the prediction changes with the trajectory: |other - right| / |right|, L2 over all of `NOISE_LEVELS`."""

    changes: Mapping[Comparison, float]
    """`right` is the right trajectory once more: what the machine's rounding alone does."""
    precision: float
    """Machine epsilon of the denoiser's weights. Rounding turns any smaller cause into an effect of about this size."""

    @property
    def strongest(self) -> float:
        """Return the largest change under another trajectory; NaN where a prediction was not finite."""
        others = [change for name, change in self.changes.items() if name != "right"]
        return max(others) if all(map(math.isfinite, self.changes.values())) else math.nan

    @property
    def exists(self) -> bool:
        """Tell whether there is any effect above the machine's rounding: what training asks of its first steps."""
        return self.strongest > 2 * self.changes["right"]

    @property
    def alive(self) -> bool:
        """Tell whether the effect is that of camera control."""
        return self.exists and self.strongest > self.required

    @property
    def required(self) -> float:
        """Return the change from which a trained model counts as controlled."""
        return max(SMALLEST_EFFECT, self.precision)

    def describe(self) -> str:
        """Say in a clause what was measured."""
        others = ", ".join(f"{change:.2g} {name}" for name, change in self.changes.items() if name != "right")
        return (
            f"relative change of the prediction {others} against the right trajectory (repeated: "
            f"{self.changes['right']:.2g}; a controlled model: above {self.required:.2g})"
        )


def reason_to_skip(model: VideoDiffusion, batch: ClipBatch, guards: GuardSettings) -> str | None:
    """Return why there is nothing to look for, or None where there is."""
    if guards.camera_alive == "off":
        return "guards.camera_alive=off"
    if isinstance(model.camera, NoCameraControl):
        return "camera=none"
    return "clips of a single frame have no trajectory" if batch.video.shape[2] < 2 else None


def camera_effect(model: VideoDiffusion, batch: ClipBatch, *, others: Cameras | None = None) -> CameraEffect:
    """Measure how the trajectory changes the prediction for a batch, all else equal.

    `others` as for `camera_interventions`. Weights, modes and random states are left as they were.
    """
    comparisons = comparison_trajectories(batch, others=others)
    return as_effect(model, comparisons, prediction_changes(model, comparisons))


def as_effect(
    model: VideoDiffusion, comparisons: Mapping[Comparison, ClipBatch], changes: Float64[Tensor, " comparisons"]
) -> CameraEffect:
    """Name what `prediction_changes` returned."""
    named = dict(zip(comparisons, changes.tolist(), strict=True))
    return CameraEffect(changes=named, precision=torch.finfo(next(model.backbone.parameters()).dtype).eps)


@torch.no_grad()
def prediction_changes(
    model: VideoDiffusion, comparisons: Mapping[Comparison, ClipBatch]
) -> Float64[Tensor, " comparisons"]:
    """Return the relative L2 change of the prediction under each trajectory, the right one (again) included.

    The path from cameras to prediction is the one that sampling takes (`VideoDiffusion.denoiser`), from the same noise.
    """
    with _evaluation_mode(model):
        reference = _predictions(model, comparisons["right"])
        size = torch.linalg.vector_norm(reference)
        changes = [torch.linalg.vector_norm(_predictions(model, batch) - reference) for batch in comparisons.values()]
    # The untrained output layer predicts 0 whatever it is told: 0 / 0 is no change.
    return torch.stack(changes).cpu() / size.cpu().clamp_min(torch.finfo(torch.float64).tiny)


def _predictions(model: VideoDiffusion, batch: ClipBatch) -> Float64[Tensor, "levels ..."]:
    draws = Draws(batch.seeds, device=batch.video.device)
    predict, image_latents = model.denoiser(batch, draws)
    still = image_latents.float()
    noise = draws.normal("camera_effect", tuple(still.shape[1:]))
    predictions = []
    for level in NOISE_LEVELS:
        timesteps = torch.full_like(batch.seeds, round(level * (model.schedule.timesteps - 1)))
        noisy = diffuse(still, noise, timesteps, schedule=model.schedule, prediction=model.prediction).noisy
        predictions.append(predict(noisy, timesteps, Branch.CONDITIONAL).double())
    return torch.stack(predictions)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def check_camera(
    model: VideoDiffusion, batch: ClipBatch, *, others: Cameras | None = None, guards: GuardSettings, source: str
) -> CameraEffect | None:
    """Measure the camera's effect on a loaded model and act on it as `guards.camera_alive` says.

    `source` names where the weights came from. Returns None where `reason_to_skip` has a reason. Raises ValueError for
    a camera without effect.
    """
    reason = reason_to_skip(model, batch, guards)
    if reason is not None:
        logger.info("%s: the camera is not checked: %s", source, reason)
        return None
    effect = camera_effect(model, batch, others=others)
    if effect.alive:
        logger.info("%s: the camera is alive: %s", source, effect.describe())
        return effect
    message = f"{source}: {verdict(effect)}: {effect.describe()}. {WHAT_TO_DO}"
    if guards.camera_alive == "error":
        raise ValueError(message)
    logger.warning("%s", message)
    return effect


WHAT_TO_DO = (
    "Its videos and scores would be those of the model without camera control (as in CamI2V issue 14). Check in the "
    "load report that the camera weights were in the checkpoint, that camera=... is the method they were trained "
    "with, and that they were trained; guards.camera_alive=warn goes on anyway"
)


def verdict(effect: CameraEffect) -> str:
    """Say in a clause what the effect means."""
    if math.isnan(effect.strongest):
        return "THE MODEL'S PREDICTION IS NOT FINITE"
    if effect.alive:
        return "the camera is alive"
    return "THE CAMERA CHANGES ALMOST NOTHING" if effect.exists else "THE CAMERA CHANGES NOTHING"
