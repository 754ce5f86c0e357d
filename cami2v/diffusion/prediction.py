"""What the denoiser predicts, and the conversions between noise, velocity and clean latents."""

from __future__ import annotations

from enum import StrEnum

from jaxtyping import Float, Int64
from torch import Tensor

from cami2v.batch import NoisyLatents
from cami2v.diffusion.schedule import NoiseSchedule


class Prediction(StrEnum):
    """The denoiser's output: the noise (`eps`), the velocity (`v`, arXiv 2202.00512) or the clean latents (`x0`)."""

    EPS = "eps"
    V = "v"
    X0 = "x0"


def check_prediction(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """Refuse a prediction that is undefined under the schedule.

    Raises:
        ValueError: noise prediction with zero terminal SNR. Its last timestep is pure noise, from which a noise
            prediction cannot recover the clean latents (division by zero).
    """
    if prediction == Prediction.EPS and schedule.zero_terminal_snr:
        raise ValueError(
            "diffusion.prediction is 'eps' with diffusion.schedule.zero_terminal_snr=true, which is undefined at the "
            "last timestep; set prediction to 'v' or zero_terminal_snr to false"
        )


def diffuse(
    clean: Float[Tensor, "batch channels frames height width"],
    noise: Float[Tensor, "batch channels frames height width"],
    timesteps: Int64[Tensor, " batch"],
    *,
    schedule: NoiseSchedule,
    prediction: Prediction,
) -> NoisyLatents:
    """Add noise to clean latents and form the training target; both see the dynamically rescaled latents."""
    scaled = clean * schedule.latent_scale(timesteps, clean.ndim)
    targets = {Prediction.EPS: noise, Prediction.V: schedule.velocity(scaled, noise, timesteps), Prediction.X0: scaled}
    noisy = schedule.add_noise(scaled, noise, timesteps)
    return NoisyLatents(noisy=noisy, target=targets[prediction], timesteps=timesteps)


def predict_clean(
    noisy: Float[Tensor, "batch ..."],
    output: Float[Tensor, "batch ..."],
    timesteps: Int64[Tensor, " batch"],
    *,
    schedule: NoiseSchedule,
    prediction: Prediction,
) -> Float[Tensor, "batch ..."]:
    """Recover the (dynamically rescaled) clean latents from the denoiser's output."""
    if prediction == Prediction.X0:
        return output
    signal, sigma = schedule.signal_and_noise(timesteps, noisy.ndim)
    if prediction == Prediction.V:
        return signal * noisy - sigma * output
    return (noisy - sigma * output) / signal


def predict_noise(
    noisy: Float[Tensor, "batch ..."],
    output: Float[Tensor, "batch ..."],
    timesteps: Int64[Tensor, " batch"],
    *,
    schedule: NoiseSchedule,
    prediction: Prediction,
) -> Float[Tensor, "batch ..."]:
    """Recover the noise from the denoiser's output."""
    if prediction == Prediction.EPS:
        return output
    signal, sigma = schedule.signal_and_noise(timesteps, noisy.ndim)
    if prediction == Prediction.X0:
        return (noisy - signal * output) / sigma
    return signal * output + sigma * noisy
