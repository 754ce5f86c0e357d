"""Noise schedule, loss and DDIM sampling against the published implementation's numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import pytest
import torch
from torch import Tensor

from cami2v.diffusion.condition_drop import drop_masks
from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.edits import Inpaint, NoiseShaping, OverlapFrames, PasteConditionFrame, Step, StepEdit
from cami2v.diffusion.guidance import Branch, Guidance
from cami2v.diffusion.loss import diffusion_loss, vlb_weights, weighted_loss
from cami2v.diffusion.prediction import Prediction, diffuse, predict_clean, predict_noise
from cami2v.diffusion.schedule import NoiseSchedule, noise_variances, rescale_to_zero_terminal_snr
from cami2v.diffusion.steps import StepSpacing, sampling_steps
from tests.golden.cases import Case, golden_folder, load_case, normal, uniform

DDIM_CASES = [
    "eps_cam_cfg1", "eps_cam_const", "eps_cam_cosine", "eps_cam_cosine_B4", "eps_cam_uncfg1", "eps_cfg7.5",
    "eps_cfg7.5_resc0.7", "eps_eta0.5", "eps_eta0", "eps_eta0_uniform", "eps_eta1", "eps_inpaint",
    "eps_noise_shaping900", "eps_overlap", "eps_paste", "v_cam_cosine", "v_cfg7.5_resc0.7_dyn", "v_eta0", "v_eta1",
    "v_noise_shaping", "v_nozsnr_quad",
]  # fmt: skip


def published_schedule(*, zero_terminal_snr: bool = False, rescale_base: float = 1.0) -> NoiseSchedule:
    return NoiseSchedule(
        timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        kind="linear",
        zero_terminal_snr=zero_terminal_snr,
        dynamic_rescale_base=rescale_base,
    )


def assert_relative(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance * 1e-6)


def test_betas() -> None:
    case = load_case("sched__betas")
    subset = case["subset_idx"]
    for kind in ("linear", "cosine", "sqrt_linear", "sqrt"):
        betas = noise_variances(1000, 0.00085, 0.012, kind)
        keep = slice(None) if kind == "linear" else subset
        assert_relative(betas[keep], case[f"betas_{kind}"], 1e-12)
        # Products of a thousand factors, some next to zero under `sqrt` and `cosine`.
        assert_relative(torch.cumprod(1 - betas, 0)[keep], case[f"acp_{kind}"], 1e-11)
        torch.testing.assert_close(
            rescale_to_zero_terminal_snr(betas)[keep], case[f"betas_zsnr_{kind}"], rtol=1e-10, atol=1e-15
        )
    assert_relative(noise_variances(37, 0.00085, 0.012, "linear"), case["betas_linear_N37"], 1e-12)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_tables(prediction: str, zero_terminal_snr: bool) -> None:
    case = load_case(f"sched__buffers_{prediction}_zsnr{int(zero_terminal_snr)}")
    schedule = published_schedule(zero_terminal_snr=zero_terminal_snr)
    t = case["t"]
    assert_relative(schedule.betas[t].float(), case["betas"], 1e-6)
    assert_relative(schedule.alphas_cumprod[t].float(), case["alphas_cumprod"], 1e-6)
    signal, sigma = schedule.signal_and_noise(t, 1)
    assert_relative(signal, case["sqrt_alphas_cumprod"], 1e-6)
    assert_relative(sigma, case["sqrt_one_minus_alphas_cumprod"], 1e-6)
    assert_relative(vlb_weights(schedule, Prediction(prediction))[t], case["lvlb_weights"], 1e-5)


@pytest.mark.parametrize("name", ["eps_zsnr0", "v_zsnr0", "v_zsnr1"])
def test_conversions(name: str) -> None:
    case = load_case(f"sched__convert_{name}")
    schedule = published_schedule(zero_terminal_snr=name.endswith("1"))
    t = torch.tensor(case.parameters["t"])
    clean, noise = (
        normal(f"qsample/{case.parameters['split_name']}/{part}", (5, 4, 3, 6, 8)) for part in ("x0", "noise")
    )
    noisy = schedule.add_noise(clean, noise, t)
    velocity = schedule.velocity(clean, noise, t)
    assert noisy.shape == clean.shape
    stored = {
        "x_t": noisy,
        "v": velocity,
        "x0_from_v": predict_clean(noisy, velocity, t, schedule=schedule, prediction=Prediction.V),
        "eps_from_v": predict_noise(noisy, velocity, t, schedule=schedule, prediction=Prediction.V),
    }
    if name.startswith("eps"):
        stored["x0_from_eps"] = predict_clean(noisy, noise, t, schedule=schedule, prediction=Prediction.EPS)
    for key, ours in stored.items():
        torch.testing.assert_close(stored_part(ours, case[key]), case[key], rtol=1e-5, atol=1e-5)


def stored_part(ours: Tensor, theirs: Tensor) -> Tensor:
    """The cases keep one frame of the five-dimensional result."""
    if ours.shape == theirs.shape:
        return ours
    return min((ours[:, :, i] for i in range(ours.shape[2])), key=lambda frame: (frame - theirs).abs().max().item())


def test_dynamic_rescale() -> None:
    theirs = load_case("sched__dynamic_rescale")["scale_arr"][:1000]
    ours = published_schedule(rescale_base=0.7).latent_scale(torch.arange(1000), 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_sampling_steps() -> None:
    case = load_case("sched__ddim_timesteps")
    for name, theirs in case.arrays.items():
        spacing, steps = name.rsplit("_", 1)
        assert sampling_steps(as_published(spacing), int(steps), 1000) == theirs.tolist(), name
        corrected = sampling_steps(cast(StepSpacing, spacing), int(steps), 1000)
        assert len(corrected) == int(steps)
        if len(theirs) == int(steps):
            assert corrected == theirs.tolist(), name


def as_published(spacing: str) -> StepSpacing:
    return cast(StepSpacing, spacing if spacing == "quad" else f"published_{spacing}")


def test_condition_drop() -> None:
    case = load_case("loss__uncond_drop")
    drop_text, drop_image = drop_masks(torch.tensor(case.parameters["u"]), 0.05)
    assert drop_text.tolist() == case.parameters["text_dropped"]
    assert drop_image.tolist() == case.parameters["image_emb_dropped"]


def toy_denoiser(noisy: Tensor, t: Tensor, concatenated: Tensor, context: Tensor, shift: float = 0.0) -> Tensor:
    wave = 0.1 * torch.sin(t.float()).reshape(-1, 1, 1, 1, 1)
    mean = 0.2 * context.mean(dim=(1, 2)).reshape(-1, 1, 1, 1, 1)
    return 0.3 * noisy + wave + 0.05 * concatenated + mean + shift


def test_losses() -> None:
    case = load_case("loss__p_losses")
    t = torch.tensor(case.parameters["t"])
    shape = (3, 4, 4, 5, 6)
    clean, concatenated, noise = (normal(f"loss/open/{name}", shape) for name in ("x0", "cat", "noise"))
    context, offset = normal("loss/open/ctx", (3, 7, 8)), normal("loss/open/offset", (3, 4, 4, 1, 1))
    assert len(case.parameters["rows"]) == 25
    for row in case.parameters["rows"]:
        prediction = Prediction(row["parameterization"])
        schedule = published_schedule(rescale_base=0.7 if "dynamic rescale" in row.get("via", "") else 1.0)
        noisy = diffuse(
            clean, noise + row.get("noise_strength", 0) * offset, t, schedule=schedule, prediction=prediction
        )
        output = toy_denoiser(noisy.noisy, t, concatenated, context)
        per_sample = diffusion_loss(output, noisy.target, kind=row["loss_type"])
        weights = vlb_weights(schedule, prediction)
        total = weighted_loss(
            per_sample,
            t,
            log_variance=torch.full((1000,), row.get("logvar_init", 0.0)),
            vlb_weights=weights,
            simple_weight=row.get("l_simple_weight", 1.0),
            vlb_weight=row.get("original_elbo_weight", 0.0),
        )
        assert per_sample.mean().item() == pytest.approx(row["train/loss_simple"], rel=1e-5)
        assert (weights[t] * per_sample).mean().item() == pytest.approx(row["train/loss_vlb"], rel=1e-5)
        assert total.item() == pytest.approx(row["loss"], rel=1e-5)


class ListedNoise:
    """Hands out the published run's numbers; the published sampler draws noise even where none is used."""

    def __init__(self, case: Case) -> None:
        prefix, shape = case.parameters["key_prefix"], tuple(case.parameters["shape"])
        self.numbers = {"ddim/initial": normal(f"{prefix}/x_T", shape)}
        for index, (purpose, frames) in enumerate(self._order(case, shape[2])):
            self.numbers[purpose] = normal(f"{prefix}/noise{index}", (*shape[:2], frames, *shape[3:]))
        assert len(self.numbers) == case.parameters["noise_draws"] + 1

    @staticmethod
    def _order(case: Case, frames: int) -> Iterator[tuple[str, int]]:
        parameters = case.parameters
        minimum = parameters["noise_shaping_minimum_timesteps"]
        for index, timestep in enumerate(reversed(case["timesteps"].tolist())):
            if parameters["inpaint_mask"]:
                yield f"ddim/{index}/inpaint", frames
            if parameters["num_overlap"]:
                yield f"ddim/{index}/overlap", parameters["num_overlap"]
            if minimum is not None and timestep >= minimum:
                yield f"ddim/{index}/scene", frames
            yield f"ddim/{index}/noise", frames

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        numbers = self.numbers[purpose]
        assert tuple(numbers.shape[1:]) == shape
        return numbers


class Recorder(StepEdit):
    """Keeps the predicted clean latents of every step."""

    def __init__(self) -> None:
        self.clean: list[Tensor] = []

    def after_prediction(self, clean: Tensor, step: Step) -> Tensor:
        self.clean.append(clean)
        return clean


def published_edits(case: Case) -> list[StepEdit]:
    parameters = case.parameters
    prefix, shape = parameters["key_prefix"], tuple(parameters["shape"])
    known = normal(f"{prefix}/z0", shape)
    edits: list[StepEdit] = []
    if parameters["inpaint_mask"]:
        edits.append(Inpaint(known=known, mask=(uniform(f"{prefix}/mask", shape) < 0.3).float()))
    if parameters["paste_cond_frame"]:
        edits.append(PasteConditionFrame(known=known, condition_frame=torch.tensor(parameters["cond_frame_index"])))
    if parameters["num_overlap"]:
        edits.append(OverlapFrames(known=known[:, :, : parameters["num_overlap"]]))
    minimum = parameters["noise_shaping_minimum_timesteps"]
    if minimum is not None:
        mask = (uniform(f"{prefix}/scene_mask", shape) < 0.6).float()
        edits.append(NoiseShaping(scene=normal(f"{prefix}/scene", shape), mask=mask, minimum_timestep=minimum))
    return edits


def published_sampler(case: Case) -> DDIMSampler:
    parameters = case.parameters
    # With the scale at 1 the published sampler ignores its camera guidance; ours refuses the combination.
    camera_scale = parameters["camera_cfg"] if parameters["cfg_scale"] != 1 else 1.0
    return DDIMSampler(
        steps=parameters["steps"],
        spacing=as_published(parameters["timestep_spacing"]),
        eta=parameters["eta"],
        temperature=1.0,
        guidance=Guidance(
            scale=parameters["cfg_scale"],
            rescale=parameters["guidance_rescale"],
            camera_scale=camera_scale,
            camera_schedule=parameters["camera_cfg_scheduler"],
        ),
    )


@pytest.mark.parametrize("name", DDIM_CASES)
def test_ddim(name: str) -> None:
    case = load_case(f"ddim__{name}")
    parameters = case.parameters
    prefix, shape = parameters["key_prefix"], tuple(parameters["shape"])
    concatenated = normal(f"{prefix}/cat", shape)
    context = {
        Branch.CONDITIONAL: normal(f"{prefix}/ctx", (shape[0], 7, 8)),
        Branch.UNCONDITIONAL: normal(f"{prefix}/uctx", (shape[0], 7, 8)),
    }
    context[Branch.CONDITIONAL_WITHOUT_CAMERA] = context[Branch.CONDITIONAL]
    calls: list[int] = []

    def predict(noisy: Tensor, t: Tensor, branch: Branch) -> Tensor:
        calls.append(int(t[0]))
        sees_camera = parameters["camera"] and branch != Branch.CONDITIONAL_WITHOUT_CAMERA
        return toy_denoiser(noisy, t, concatenated, context[branch], 0.15 if sees_camera else 0.0)

    recorder = Recorder()
    final = published_sampler(case).sample(
        predict,
        schedule=published_schedule(
            zero_terminal_snr=parameters["rescale_betas_zero_snr"], rescale_base=parameters["base_scale"] or 1.0
        ),
        prediction=Prediction(parameters["parameterization"]),
        shape=shape[1:],
        draws=ListedNoise(case),
        edits=[*published_edits(case), recorder],
    )
    assert len(calls) == parameters["model_calls_total"]
    for ours, key in ((final, "final"), (recorder.clean[0], "pred_x0_first")):
        tolerance = 1e-4 * case[key].abs().max().item()
        torch.testing.assert_close(ours, case[key], rtol=0, atol=tolerance)
    middle = min((x - case["pred_x0_mid"]).abs().max().item() for x in recorder.clean)
    assert middle <= 1e-4 * case["pred_x0_mid"].abs().max().item()


def test_noise_prediction_from_pure_noise_is_refused() -> None:
    case = load_case("ddim__eps_zsnr_eta1")
    assert not case.parameters["finite"]
    with pytest.raises(ValueError, match="zero_terminal_snr"):
        published_sampler(case).sample(
            lambda noisy, t, branch: noisy,
            schedule=published_schedule(zero_terminal_snr=True),
            prediction=Prediction.EPS,
            shape=tuple(case.parameters["shape"][1:]),
            draws=ListedNoise(case),
        )


def test_every_ddim_case_is_tested() -> None:
    stored = {path.stem.removeprefix("ddim__") for path in (golden_folder() / "cases").glob("ddim__*.json")}
    assert stored == {*DDIM_CASES, "eps_zsnr_eta1"}


def test_noise_levels_of_the_sampler() -> None:
    case = load_case("sched__ddim_params")
    for name, theirs in case.arrays.items():
        if not name.startswith("sig_"):
            continue
        spacing, steps, zero, eta = name.removeprefix("sig_").rsplit("_", 3)
        schedule = published_schedule(zero_terminal_snr=zero == "z1")
        visited = sampling_steps(as_published(spacing), int(steps), 1000)
        levels = schedule.alphas_cumprod.float().double()
        previous = torch.cat([levels[:1], levels[visited[:-1]]])
        assert_relative(levels[visited], case[f"a_{spacing}_{steps}_{zero}"], 1e-5)
        assert_relative(previous, case[f"aprev_{spacing}_{steps}_{zero}"], 1e-5)
        assert theirs.shape == (int(steps),)
        assert math.isfinite(float(eta.removeprefix("eta")))
