from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.edits import Inpaint, NoiseShaping, OverlapFrames, PasteConditionFrame, StepEdit
from cami2v.diffusion.guidance import Branch, Guidance
from cami2v.diffusion.multistep import DPMSolverSampler
from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.sampler import Sampler
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.diffusion.steps import StepSpacing, sampling_steps
from cami2v.draws import Draws

SHAPE = (4, 3, 5, 6)


def make_schedule(zero_terminal_snr: bool = False) -> NoiseSchedule:
    return NoiseSchedule(
        timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        kind="linear",
        zero_terminal_snr=zero_terminal_snr,
        dynamic_rescale_base=1.0,
    )


def make_sampler(*, scale: float = 1.0, camera_scale: float = 1.0, eta: float = 0.0, steps: int = 8) -> DDIMSampler:
    guidance = Guidance(scale=scale, rescale=0.0, camera_scale=camera_scale, camera_schedule="cosine")
    return DDIMSampler(steps=steps, spacing="uniform_trailing", eta=eta, temperature=1.0, guidance=guidance)


def oracle(clean: Tensor, schedule: NoiseSchedule, prediction: Prediction):
    """The perfect denoiser of a data set with one sample."""

    def predict(noisy: Tensor, timesteps: Tensor, branch: Branch) -> Tensor:
        signal, sigma = schedule.signal_and_noise(timesteps, noisy.ndim)
        noise = (noisy - signal * clean) / sigma
        return {
            Prediction.EPS: noise,
            Prediction.V: signal * noise - sigma * clean,
            Prediction.X0: clean.expand_as(noisy),
        }[prediction]

    return predict


def smooth(noisy: Tensor, timesteps: Tensor, branch: Branch) -> Tensor:
    return torch.tanh(noisy) + {"conditional": 0.1, "unconditional": -0.2}.get(branch, 0.0)


def draws(*seeds: int) -> Draws:
    return Draws(torch.tensor(seeds))


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("prediction", list(Prediction))
def test_a_perfect_denoiser_gives_the_data_back(prediction: Prediction, eta: float) -> None:
    schedule = make_schedule(zero_terminal_snr=prediction != Prediction.EPS)
    clean = torch.randn(1, *SHAPE)
    found = make_sampler(eta=eta).sample(
        oracle(clean, schedule, prediction), schedule=schedule, prediction=prediction, shape=SHAPE, draws=draws(1, 2)
    )
    # The last step ends at the schedule's first noise level.
    residual = (1 - schedule.alphas_cumprod[0]).sqrt().item()
    torch.testing.assert_close(found, clean.expand(2, *SHAPE), rtol=0, atol=6 * residual)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_do_not_depend_on_their_batch(eta: float) -> None:
    def run(*seeds: int) -> Tensor:
        return make_sampler(eta=eta, scale=3.0, camera_scale=2.0).sample(
            smooth, schedule=make_schedule(), prediction=Prediction.V, shape=SHAPE, draws=draws(*seeds)
        )

    together = run(5, 6, 7)
    assert torch.equal(together[1:2], run(6))
    assert not torch.equal(together[0], together[1])


def test_eta_zero_needs_no_fresh_noise() -> None:
    class InitialOnly:
        def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
            assert purpose == "ddim/initial"
            return torch.zeros(1, *shape)

    make_sampler().sample(smooth, schedule=make_schedule(), prediction=Prediction.EPS, shape=SHAPE, draws=InitialOnly())


@pytest.mark.parametrize(("scale", "camera_scale", "count"), [(1.0, 1.0, 1), (2.0, 1.0, 2), (2.0, 3.0, 3)])
def test_only_the_needed_branches_are_evaluated(scale: float, camera_scale: float, count: int) -> None:
    calls: list[Branch] = []

    def predict(noisy: Tensor, timesteps: Tensor, branch: Branch) -> Tensor:
        calls.append(branch)
        return noisy

    make_sampler(scale=scale, camera_scale=camera_scale, steps=5).sample(
        predict, schedule=make_schedule(), prediction=Prediction.EPS, shape=SHAPE, draws=draws(0)
    )
    assert calls == list(Branch)[:count] * 5


def test_camera_guidance_follows_its_schedule_for_any_batch_size() -> None:
    guidance = Guidance(scale=1.5, rescale=0.0, camera_scale=3.0, camera_schedule="cosine")
    outputs = {
        Branch.CONDITIONAL: torch.full((3, *SHAPE), 2.0),
        Branch.UNCONDITIONAL: torch.full((3, *SHAPE), 1.0),
        Branch.CONDITIONAL_WITHOUT_CAMERA: torch.full((3, *SHAPE), 1.5),
    }
    assert guidance.combine(outputs, 999, 1000).unique().item() == pytest.approx(1 + 1.5 + 2 * 0.5)
    assert guidance.combine(outputs, 0, 1000).unique().item() == pytest.approx(2.5)


def test_guidance_rescale_restores_the_deviation() -> None:
    guidance = Guidance(scale=7.5, rescale=1.0, camera_scale=1.0, camera_schedule="constant")
    conditional, unconditional = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    guided = guidance.combine({Branch.CONDITIONAL: conditional, Branch.UNCONDITIONAL: unconditional}, 10, 1000)
    torch.testing.assert_close(guided.flatten(1).std(dim=1), conditional.flatten(1).std(dim=1))


def test_contradicting_guidance_is_refused() -> None:
    with pytest.raises(ValueError, match="camera_scale is 2"):
        Guidance(scale=1.0, rescale=0.0, camera_scale=2.0, camera_schedule="constant")


def test_edits_hold_known_latents() -> None:
    known = torch.randn(2, *SHAPE)
    frame = torch.tensor([0, 2])
    edits = [PasteConditionFrame(known=known, condition_frame=frame)]
    pasted = run_with(edits)
    assert torch.equal(pasted[0, :, 0], known[0, :, 0])
    assert torch.equal(pasted[1, :, 2], known[1, :, 2])
    assert not torch.equal(pasted[0, :, 2], known[0, :, 2])
    assert torch.equal(run_with([OverlapFrames(known=known[:, :, :2])])[:, :, :2], known[:, :, :2])


def test_inpainting_and_noise_shaping_pull_towards_the_known_latents() -> None:
    known = 3 * torch.ones(2, *SHAPE)
    mask = torch.zeros(2, *SHAPE)
    mask[:, :, :, :2] = 1
    free = run_with([])
    for edit in (Inpaint(known=known, mask=mask), NoiseShaping(scene=known, mask=mask, minimum_timestep=100)):
        steered = run_with([edit])
        assert (steered - known)[mask.bool()].abs().mean() < 0.9 * (free - known)[mask.bool()].abs().mean()
    late = NoiseShaping(scene=known, mask=mask, minimum_timestep=1000)
    assert torch.equal(run_with([late]), free)


@pytest.mark.parametrize("kind", [DDIMSampler, DPMSolverSampler])
def test_known_latents_take_part_in_the_dynamic_rescale(kind: type[Sampler]) -> None:
    """What is pasted is as strong as what the denoiser saw of such latents in training."""
    schedule = NoiseSchedule(
        timesteps=1000, beta_start=0.00085, beta_end=0.012, kind="linear", zero_terminal_snr=True,
        dynamic_rescale_base=0.7,
    )  # fmt: skip
    guidance = Guidance(scale=1.0, rescale=0.0, camera_scale=1.0, camera_schedule="constant")
    options: dict[str, Any] = {"eta": 0.0, "temperature": 1.0} if kind is DDIMSampler else {"order": 1}
    sampler = kind(steps=5, spacing="uniform_trailing", guidance=guidance, **options)
    clean = 100 * torch.ones(1, *SHAPE)
    first_frame: list[float] = []

    def predict(noisy: Tensor, timesteps: Tensor, branch: Branch) -> Tensor:
        signal = schedule.signal_and_noise(timesteps, 1)[0] * schedule.latent_scale(timesteps, 1)
        if timesteps[0] < schedule.timesteps - 1:
            first_frame.append((noisy[:, :, 0].mean() / signal / 100).item())
        return clean * schedule.latent_scale(timesteps, noisy.ndim)

    def seen(*edits: StepEdit) -> Tensor:
        first_frame.clear()
        sampled = sampler.sample(
            predict, schedule=schedule, prediction=Prediction.X0, shape=SHAPE, draws=draws(1), edits=edits
        )
        return sampled if not edits else torch.tensor(first_frame)

    known = seen()[:, :, :1]
    expected = torch.ones(4)
    torch.testing.assert_close(
        seen(OverlapFrames(known=known, scale=sampler.final_scale(schedule))), expected, atol=0.02, rtol=0
    )
    shaping = NoiseShaping(scene=clean, mask=torch.ones(1, 1, *SHAPE[1:]), minimum_timestep=0, scale=1.0)
    torch.testing.assert_close(seen(shaping), expected, atol=0.02, rtol=0)
    published = NoiseShaping(scene=clean, mask=torch.ones(1, 1, *SHAPE[1:]), minimum_timestep=0)
    assert seen(published)[0] > 1.3


def run_with(edits: list) -> Tensor:
    return make_sampler(eta=1.0).sample(
        smooth, schedule=make_schedule(), prediction=Prediction.EPS, shape=SHAPE, draws=draws(1, 2), edits=edits
    )


@pytest.mark.parametrize("spacing", ["uniform", "uniform_trailing", "quad"])
def test_every_number_of_steps_is_honoured(spacing: StepSpacing) -> None:
    for timesteps in (7, 50, 1000):
        for steps in range(1, timesteps + 1, 1 if timesteps < 1000 else 7):
            visited = sampling_steps(spacing, steps, timesteps)
            assert len(visited) == steps
            assert 0 <= visited[0] <= visited[-1] < timesteps
            if spacing != "quad":
                assert visited == sorted(set(visited))
            if spacing == "uniform_trailing":
                assert visited[-1] == timesteps - 1


@pytest.mark.parametrize(
    ("spacing", "steps", "message"),
    [
        ("uniform", 0, "1 to 1000"),
        ("uniform", 1001, "1 to 1000"),
        ("published_uniform", 3, "use 'uniform'"),
        ("published_uniform_trailing", 61, "use 'uniform_trailing'"),
    ],
)
def test_impossible_steps_are_refused(spacing: StepSpacing, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampling_steps(spacing, steps, 1000)
