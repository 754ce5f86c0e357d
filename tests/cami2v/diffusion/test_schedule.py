from __future__ import annotations

import pytest
import torch

from cami2v.diffusion.prediction import Prediction, check_prediction, diffuse, predict_clean, predict_noise
from cami2v.diffusion.schedule import NoiseSchedule


def make_schedule(
    *, zero_terminal_snr: bool = False, rescale_base: float = 1.0, timesteps: int = 1000
) -> NoiseSchedule:
    return NoiseSchedule(
        timesteps=timesteps,
        beta_start=0.00085,
        beta_end=0.012,
        kind="linear",
        zero_terminal_snr=zero_terminal_snr,
        dynamic_rescale_base=rescale_base,
    )


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_variance_is_preserved_and_signal_falls(zero_terminal_snr: bool) -> None:
    schedule = make_schedule(zero_terminal_snr=zero_terminal_snr)
    signal, sigma = schedule.signal_and_noise(torch.arange(1000), 1)
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones(1000))
    assert (signal.diff() < 0).all()
    assert (signal[-1] == 0) == zero_terminal_snr
    assert signal[0] == make_schedule().signal_and_noise(torch.tensor([0]), 1)[0]


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("rescale_base", [1.0, 0.7])
def test_the_target_leads_back_to_the_clean_latents(prediction: Prediction, rescale_base: float) -> None:
    schedule = make_schedule(rescale_base=rescale_base)
    clean, noise = torch.randn(3, 4, 2, 5, 6), torch.randn(3, 4, 2, 5, 6)
    timesteps = torch.tensor([0, 350, 800])
    noisy = diffuse(clean, noise, timesteps, schedule=schedule, prediction=prediction)
    scaled = clean * schedule.latent_scale(timesteps, 5)
    recovered = predict_clean(noisy.noisy, noisy.target, timesteps, schedule=schedule, prediction=prediction)
    torch.testing.assert_close(recovered, scaled, rtol=0, atol=2e-5)
    found = predict_noise(noisy.noisy, noisy.target, timesteps, schedule=schedule, prediction=prediction)
    torch.testing.assert_close(found, noise, rtol=0, atol=2e-4)


def test_latent_scale_falls_to_its_base_and_stays() -> None:
    scale = make_schedule(rescale_base=0.7).latent_scale(torch.arange(1000), 1)
    assert scale[0] == 1
    assert (scale[:400].diff() < 0).all()
    assert (scale[399:] == torch.tensor(0.7)).all()
    assert make_schedule(rescale_base=0.7, timesteps=50).latent_scale(torch.tensor([49]), 2).shape == (1, 1)


def test_noise_prediction_needs_some_signal_everywhere() -> None:
    with pytest.raises(ValueError, match="zero_terminal_snr"):
        check_prediction(Prediction.EPS, make_schedule(zero_terminal_snr=True))
    check_prediction(Prediction.V, make_schedule(zero_terminal_snr=True))
    check_prediction(Prediction.EPS, make_schedule())
