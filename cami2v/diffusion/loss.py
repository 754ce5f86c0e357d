"""The denoising loss."""

from __future__ import annotations

from typing import Literal

import torch
from einops import reduce
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.schedule import NoiseSchedule

LossKind = Literal["l1", "l2"]


def diffusion_loss(
    prediction: Float[Tensor, "batch ..."], target: Float[Tensor, "batch ..."], *, kind: LossKind = "l2"
) -> Float32[Tensor, " batch"]:
    """Average the error of each sample over all its elements, in float32 whatever the network's precision."""
    error = prediction.float() - target.float()
    return reduce(error.abs() if kind == "l1" else error.square(), "batch ... -> batch", "mean")


def weighted_loss(
    loss_per_sample: Float32[Tensor, " batch"],
    timesteps: Int64[Tensor, " batch"],
    *,
    log_variance: Float32[Tensor, " timesteps"],
    vlb_weights: Float32[Tensor, " timesteps"],
    simple_weight: float,
    vlb_weight: float,
) -> Float32[Tensor, ""]:
    """Combine the per-sample losses with a (learnable) log variance per timestep and the variational bound.

    With zero log variance, `simple_weight` 1 and `vlb_weight` 0 this is the plain mean all published recipes use.
    """
    log_variance_t = log_variance[timesteps]
    simple = (loss_per_sample / log_variance_t.exp() + log_variance_t).mean()
    bound = (vlb_weights[timesteps] * loss_per_sample).mean()
    return simple_weight * simple + vlb_weight * bound


def vlb_weights(schedule: NoiseSchedule, prediction: Prediction) -> Float32[Tensor, " timesteps"]:
    """Compute each timestep's weight in the variational bound (DDPM, arXiv 2006.11239, equation 12).

    Ones under velocity prediction, as published. The first weight repeats the second: its posterior variance is zero.
    """
    if prediction == Prediction.V:
        return torch.ones(schedule.timesteps)
    betas, alphas_cumprod = schedule.betas, schedule.alphas_cumprod
    previous = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    if prediction == Prediction.X0:
        # As published; DDPM's own bound would divide by 2 * (1 - alphas_cumprod).
        weights = 0.5 * alphas_cumprod.sqrt() / (2 - alphas_cumprod)
        weights[0] = weights[1]
        return weights.float()
    posterior_variance = betas * (1 - previous) / (1 - alphas_cumprod)
    weights = betas**2 / (2 * posterior_variance * (1 - betas) * (1 - alphas_cumprod))
    weights[0] = weights[1]
    return weights.float()
