from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.edits import Inpaint, OverlapFrames
from cami2v.diffusion.guidance import Branch, Guidance
from cami2v.diffusion.multistep import DPMSolverSampler, MultistepSampler, UniPCSampler
from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.sampler import Sampler
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.diffusion.steps import StepSpacing, sampling_steps
from cami2v.draws import Draws

SHAPE = (4, 3, 4, 4)
PLAIN = Guidance(scale=1.0, rescale=0.0, camera_scale=1.0, camera_schedule="constant")
SOLVERS = (DPMSolverSampler, UniPCSampler)
PUBLISHED = [(Prediction.EPS, False, 1.0), (Prediction.V, True, 0.7)]
"""Prediction, zero terminal SNR and dynamic rescale of the 256 and the 512 models."""


def make_schedule(zero_terminal_snr: bool, base: float, beta_end: float = 0.012) -> NoiseSchedule:
    return NoiseSchedule(
        timesteps=1000, beta_start=0.00085, beta_end=beta_end, kind="linear", zero_terminal_snr=zero_terminal_snr,
        dynamic_rescale_base=base,
    )  # fmt: skip


def two_points(schedule: NoiseSchedule, prediction: Prediction) -> Callable[[Tensor, Tensor, Branch], Tensor]:
    """The perfect denoiser of data spread by 0.3 around -1 and 1."""

    def predict(noisy: Tensor, timesteps: Tensor, branch: Branch) -> Tensor:
        signal, sigma = schedule.signal_and_noise(timesteps, noisy.ndim)
        scale = schedule.latent_scale(timesteps, noisy.ndim)
        scaled = signal * scale
        variance = (0.3 * scaled) ** 2 + sigma**2
        sign = torch.tanh(scaled * noisy / variance)
        clean = scale * (sign + 0.09 * scaled / variance * (noisy - scaled * sign))
        noise = (noisy - signal * clean) / sigma
        return {Prediction.EPS: noise, Prediction.V: signal * noise - sigma * clean, Prediction.X0: clean}[prediction]

    return predict


def ddim(steps: int, spacing: StepSpacing = "uniform_trailing") -> DDIMSampler:
    return DDIMSampler(steps=steps, spacing=spacing, eta=0.0, temperature=1.0, guidance=PLAIN)


def run(sampler: Sampler, prediction: Prediction, schedule: NoiseSchedule) -> Tensor:
    draws = Draws(torch.tensor([3]))
    predict = two_points(schedule, prediction)
    return sampler.sample(predict, schedule=schedule, prediction=prediction, shape=SHAPE, draws=draws)


@functools.cache
def converged_solution(prediction: Prediction, zero_snr: bool, base: float) -> Tensor:
    return run(ddim(1000), prediction, make_schedule(zero_snr, base))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("prediction", "zero_snr", "base"), PUBLISHED)
def test_far_fewer_steps_than_ddim_reach_the_converged_solution(
    solver: type[MultistepSampler], prediction: Prediction, zero_snr: bool, base: float
) -> None:
    schedule = make_schedule(zero_snr, base)
    converged = converged_solution(prediction, zero_snr, base)

    def error(sampler: Sampler) -> float:
        return float((run(sampler, prediction, schedule) - converged).norm() / converged.norm())

    multistep = error(solver(steps=15, spacing="quad_trailing", guidance=PLAIN))
    assert multistep < 0.005
    assert multistep < 0.2 * error(ddim(50))
    # The published spacings are served as well; their last, long step costs more than all others.
    assert multistep < error(solver(steps=15, spacing="uniform_trailing", guidance=PLAIN)) < error(ddim(15))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_schedule_that_nearly_ends_in_pure_noise_is_no_exception(solver: type[MultistepSampler]) -> None:
    schedule = make_schedule(False, 1.0, beta_end=0.08)
    found = run(solver(steps=20, spacing="uniform_trailing", guidance=PLAIN), Prediction.X0, schedule)
    converged = run(ddim(300, "quad_trailing"), Prediction.X0, schedule)
    assert (found - converged).norm() < 0.1 * converged.norm()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("spacing", ["uniform", "uniform_trailing", "quad"])
@pytest.mark.parametrize("prediction", list(Prediction))
def test_the_first_order_is_ddim_without_noise(
    solver: type[MultistepSampler], spacing: StepSpacing, prediction: Prediction
) -> None:
    schedule = make_schedule(False, 1.0)
    found = run(solver(steps=10, spacing=spacing, guidance=PLAIN, order=1), prediction, schedule)
    expected = run(ddim(10, spacing), prediction, schedule)
    if solver is UniPCSampler:
        # Its corrector refines even the first order: near, not equal.
        assert (found - expected).norm() < 0.25 * expected.norm()
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_edits_hold_what_is_known(solver: type[MultistepSampler]) -> None:
    schedule = make_schedule(True, 1.0)
    known = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, *SHAPE)
    mask[:, :, 2] = 1
    edits = (OverlapFrames(known=known[:, :, :1]), Inpaint(known=known, mask=mask))
    found = solver(steps=20, spacing="quad_trailing", guidance=PLAIN).sample(
        two_points(schedule, Prediction.V), schedule=schedule, prediction=Prediction.V, shape=SHAPE,
        draws=Draws(torch.tensor([1])), edits=edits,
    )  # fmt: skip
    assert torch.equal(found[:, :, 0], known[:, :, 0])
    # Known latents enter noisy, at the last visited level too: the denoiser has the last word.
    assert (found[:, :, 2].sign() == known[:, :, 2].sign()).float().mean() > 0.8


@pytest.mark.parametrize("sampler", [ddim(4), *(s(steps=4, spacing="quad_trailing", guidance=PLAIN) for s in SOLVERS)])
def test_steps_are_told_and_can_be_ended(sampler: Sampler) -> None:
    class EnoughError(Exception):
        pass

    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise EnoughError

    schedule = make_schedule(False, 1.0)
    with pytest.raises(EnoughError):
        sampler.sample(
            two_points(schedule, Prediction.EPS), schedule=schedule, prediction=Prediction.EPS, shape=SHAPE,
            draws=Draws(torch.tensor([1])), on_step=watch,
        )  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize("steps", [1, 2, 15, 100, 1000])
def test_quad_trailing_has_all_its_steps_and_ends_at_the_last(steps: int) -> None:
    visited = sampling_steps("quad_trailing", steps, 1000)
    assert len(visited) == steps
    assert visited == sorted(visited)
    assert visited[-1] == 999
    assert visited[0] >= 1
