"""What a training step minimises."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from cami2v.diffusion.edits import NoiseSource
from cami2v.diffusion.loss import LossKind, diffusion_loss, vlb_weights, weighted_loss
from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.schedule import NoiseSchedule


class TrainingObjective(nn.Module):
    """The denoising loss and its options. Every published recipe leaves them at the plain mean squared error.

    Args:
        kind: of error, `l2` or `l1`.
        noise_offset: deviation of a number added to the noise of each channel of each frame, so that brightness is
            learned at all noise levels; 0 for none.
        simple_weight: factor of the mean loss.
        vlb_weight: factor of the variational bound (DDPM, arXiv 2006.11239, equation 12).
        log_variance: log variance of the loss of every timestep, by which it is weighted; 0 for none.
        learn_log_variance: train one log variance per timestep, from that value on.
        timesteps: of the schedule.
    """

    log_variance: nn.Parameter | None

    def __init__(
        self,
        *,
        kind: LossKind,
        noise_offset: float,
        simple_weight: float,
        vlb_weight: float,
        log_variance: float,
        learn_log_variance: bool,
        timesteps: int,
    ) -> None:
        super().__init__()
        self.kind: LossKind = kind
        self.noise_offset = noise_offset
        self.simple_weight = simple_weight
        self.vlb_weight = vlb_weight
        self.fixed_log_variance = log_variance
        learned = nn.Parameter(torch.full((timesteps,), log_variance)) if learn_log_variance else None
        self.register_parameter("log_variance", learned)

    def draw_noise(
        self, draws: NoiseSource, shape: tuple[int, ...]
    ) -> Float[Tensor, "batch channels frames height width"]:
        """Draw the noise of a training step; `shape` leaves the batch out."""
        noise = draws.normal("noise", shape)
        if self.noise_offset > 0:
            noise = noise + self.noise_offset * draws.normal("noise_offset", (*shape[:2], 1, 1))
        return noise

    def per_sample(
        self, predicted: Float[Tensor, "batch ..."], target: Float[Tensor, "batch ..."]
    ) -> Float32[Tensor, " batch"]:
        """Average the error of each sample."""
        return diffusion_loss(predicted, target, kind=self.kind)

    def combine(
        self,
        per_sample: Float32[Tensor, " batch"],
        timesteps: Int64[Tensor, " batch"],
        *,
        schedule: NoiseSchedule,
        prediction: Prediction,
    ) -> Float32[Tensor, ""]:
        """Weight the samples' losses and sum up."""
        fixed = per_sample.new_full((schedule.timesteps,), self.fixed_log_variance)
        needs_bound = self.vlb_weight > 0
        bound = vlb_weights(schedule, prediction).to(per_sample.device) if needs_bound else torch.zeros_like(fixed)
        return weighted_loss(
            per_sample,
            timesteps,
            log_variance=fixed if self.log_variance is None else self.log_variance.float(),
            vlb_weights=bound,
            simple_weight=self.simple_weight,
            vlb_weight=self.vlb_weight,
        )


def mean_squared_error(timesteps: int) -> TrainingObjective:
    """Make the objective of every published recipe."""
    return TrainingObjective(
        kind="l2",
        noise_offset=0.0,
        simple_weight=1.0,
        vlb_weight=0.0,
        log_variance=0.0,
        learn_log_variance=False,
        timesteps=timesteps,
    )
