"""Cases of noise schedules, conversions between predictions, and sampling steps."""

from __future__ import annotations

import re
from typing import cast

import torch
from torch import Tensor

from cami2v.diffusion.ddim import step_levels
from cami2v.diffusion.loss import vlb_weights
from cami2v.diffusion.prediction import Prediction, predict_clean, predict_noise
from cami2v.diffusion.schedule import (
    DYNAMIC_RESCALE_STEPS,
    NoiseSchedule,
    ScheduleKind,
    noise_variances,
    rescale_to_zero_terminal_snr,
)
from cami2v.diffusion.steps import StepSpacing, published_steps, sampling_steps
from tools.parity.cases import Case, normal
from tools.parity.checks import Checks
from tools.parity.published_schedule import TIMESTEPS, published_schedule


def betas(case: Case) -> Checks:
    """Compare noise variances, their products and their rescaled form, for every kind of schedule stored."""
    parameters = case.parameters
    checks, tolerance = Checks(), case.stated_tolerance(1e-12)
    for name in sorted(case.arrays.keys() - {"subset_idx"}):
        parts = re.fullmatch(r"(betas|acp|betas_zsnr)_(linear|sqrt_linear|sqrt|cosine)(?:_N(\d+))?", name)
        if parts is None:
            raise ValueError(f"{case.name}: array {name!r} is of an unknown schedule")
        quantity, kind, length = parts.groups()
        steps = int(length) if length else parameters["N"]
        ours = noise_variances(steps, parameters["linear_start"], parameters["linear_end"], cast(ScheduleKind, kind))
        if quantity == "acp":
            ours = torch.cumprod(1 - ours, 0)
        elif quantity == "betas_zsnr":
            ours = rescale_to_zero_terminal_snr(ours)
        theirs = case[name]
        if len(theirs) != steps:
            ours = ours[case["subset_idx"]]
        checks.elementwise(name, ours, theirs, relative=tolerance, absolute=1e-15)
    return checks


def buffers(case: Case) -> Checks:
    """Compare every table the published model registers; those our samplers do not need follow from those they do."""
    prediction, schedule = _variant(case)
    t = case["t"]
    checks = Checks()
    for name, ours in _tables(schedule, prediction).items():
        checks.elementwise(name, ours[t].float(), case[name], relative=1e-5, absolute=1e-30)
        checks.equal(
            f"{name}: non-finite entries", int((~ours.float().isfinite()).sum()), case.parameters["nonfinite"][name]
        )
    return checks


def _tables(schedule: NoiseSchedule, prediction: Prediction) -> dict[str, Tensor]:
    betas, levels = schedule.betas, schedule.alphas_cumprod
    previous = torch.cat([levels.new_ones(1), levels[:-1]])
    variance = betas * (1 - previous) / (1 - levels)
    signal, sigma = schedule.signal_and_noise(torch.arange(schedule.timesteps), 1)
    reciprocal = torch.zeros_like(levels) if prediction == Prediction.V else levels.reciprocal()
    less_one = torch.zeros_like(levels) if prediction == Prediction.V else reciprocal - 1
    return {
        "betas": betas,
        "alphas_cumprod": levels,
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": signal,
        "sqrt_one_minus_alphas_cumprod": sigma,
        "log_one_minus_alphas_cumprod": torch.log(1 - levels),
        "sqrt_recip_alphas_cumprod": reciprocal.sqrt(),
        "sqrt_recipm1_alphas_cumprod": less_one.sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": torch.log(variance.clamp_min(1e-20)),
        "posterior_mean_coef1": betas * previous.sqrt() / (1 - levels),
        "posterior_mean_coef2": (1 - previous) * (1 - betas).sqrt() / (1 - levels),
        "lvlb_weights": vlb_weights(schedule, prediction),
    }


def convert(case: Case) -> Checks:
    """Compare noising and the conversions between clean latents, noise and velocity."""
    prediction, schedule = _variant(case)
    shape = tuple(int(each) for each in case.stated(r"\(([\d,\s]+)\)")[0].split(","))
    t = torch.tensor(case.parameters["t"])
    split = case.parameters.get("split_name") or case.split
    clean, noise = (normal(f"qsample/{split}/{part}", shape) for part in ("x0", "noise"))
    noisy = schedule.add_noise(clean, noise, t)
    velocity = schedule.velocity(clean, noise, t)
    ours = {
        "x_t": noisy,
        "v": velocity,
        "x0_from_v": predict_clean(noisy, velocity, t, schedule=schedule, prediction=Prediction.V),
        "eps_from_v": predict_noise(noisy, velocity, t, schedule=schedule, prediction=Prediction.V),
        "x0_from_eps": predict_clean(noisy, noise, t, schedule=schedule, prediction=Prediction.EPS),
    }
    checks, tolerance = Checks(), case.stated_tolerance(1e-5)
    for name in sorted(case.arrays.keys()):
        theirs = case[name]
        values = ours[name] if theirs.ndim == noisy.ndim else ours[name][:, :, 0]
        if name == "x0_from_eps" and prediction == Prediction.V:
            # Velocity models register tables of zeros for this conversion, which none of them uses.
            values = torch.zeros_like(values)
        checks.elementwise(name, values, theirs, relative=tolerance, absolute=tolerance)
    return checks


def ddim_levels(case: Case) -> Checks:
    """Compare the noise levels of DDIM's steps for every spacing, number of steps, schedule and eta stored."""
    checks, tolerance = Checks(), case.stated_tolerance(1e-5)
    for name in case.arrays:
        parts = re.fullmatch(r"(sig|a|aprev)_(.+)_(\d+)_z([01])(?:_eta([\d.]+))?", name)
        if parts is None:
            raise ValueError(f"{case.name}: array {name!r} is of an unknown kind")
        quantity, spacing, steps, zero, eta = parts.groups()
        schedule = published_schedule(zero_terminal_snr=zero == "1")
        visited = sampling_steps(as_published(spacing), int(steps), TIMESTEPS)
        levels = step_levels(schedule, visited, float(eta or 0))
        ours = {"sig": levels.sigma, "a": levels.signal, "aprev": levels.next_signal}[quantity]
        checks.elementwise(name, ours, case[name], relative=tolerance, absolute=1e-12)
    return checks


def ddim_steps(case: Case) -> Checks:
    """Compare the visited timesteps, and where the published lists have a wrong length or leave the schedule."""
    (timesteps,) = (int(each) for each in case.stated(r"make_ddim_timesteps\(\w+,\s*\w+,\s*(\d+)\)"))
    checks = Checks()
    for name in case.arrays:
        spacing, steps = name.rsplit("_", 1)
        theirs = case[name].tolist()
        checks.equal(name, published_steps(as_published(spacing), int(steps), timesteps).tolist(), theirs)
        corrected = sampling_steps(cast(StepSpacing, spacing), int(steps), timesteps)
        if len(theirs) == int(steps) and theirs[0] >= 0 and theirs[-1] < timesteps:
            checks.equal(f"{name}, corrected", corrected, theirs)
        else:
            checks.equal(f"{name}, corrected: length", len(corrected), int(steps))
    for key, facts in case.parameters.items():
        bounds = re.fullmatch(r"scan_S_(\d+)_to_(\d+)", key)
        if bounds:
            _compare_scan(checks, facts, range(int(bounds[1]), int(bounds[2]) + 1), timesteps)
    return checks


def _compare_scan(checks: Checks, facts: dict[str, dict[str, object]], counts: range, timesteps: int) -> None:
    for spacing, theirs in facts.items():
        wrong_length, outside, refused = [], [], []
        for steps in counts:
            visited = published_steps(as_published(spacing), steps, timesteps)
            if len(visited) != steps:
                wrong_length.append([steps, len(visited)])
            if visited.min() < 0 or visited.max() >= timesteps:
                outside.append([steps, int(visited.min()), int(visited.max())])
            if not _offered(as_published(spacing), steps, timesteps):
                refused.append(steps)
        ours = {
            "n_wrong_length": len(wrong_length),
            "wrong_length_first": wrong_length,
            "n_out_of_range": len(outside),
            "out_of_range": outside,
        }
        for fact, value in theirs.items():
            mine = ours[fact]
            shown = mine[: len(value)] if isinstance(mine, list) and isinstance(value, list) else mine
            checks.equal(f"scan {spacing} {fact}", shown, value)
        checks.equal(f"scan {spacing}: refused where outside", refused, [row[0] for row in outside])


def _offered(spacing: StepSpacing, steps: int, timesteps: int) -> bool:
    try:
        sampling_steps(spacing, steps, timesteps)
    except ValueError:
        return False
    return True


def dynamic_rescale(case: Case) -> Checks:
    """Compare the factors of clean latents; of the published table only the schedule's length is ever read."""
    theirs, base = case["scale_arr"], float(case.parameters["base_scale"])
    timesteps = case.parameters["length"] - case.parameters["turning_step"]
    checks = Checks()
    checks.equal("turning_step", DYNAMIC_RESCALE_STEPS, case.parameters["turning_step"])
    checks.equal("timesteps", TIMESTEPS, timesteps)
    ours = published_schedule(dynamic_rescale_base=base).latent_scale(torch.arange(TIMESTEPS), 1)
    checks.elementwise("scale_arr", ours, theirs[:timesteps], relative=1e-6)
    checks.elementwise("scale_arr, unused", ours[-1].expand(len(theirs) - timesteps), theirs[timesteps:], relative=1e-6)
    return checks


def as_published(spacing: str) -> StepSpacing:
    """Name our spacing that reproduces a published one."""
    return cast(StepSpacing, spacing if spacing == "quad" else f"published_{spacing}")


def _variant(case: Case) -> tuple[Prediction, NoiseSchedule]:
    found = re.search(r"_(eps|v|x0)_zsnr([01])$", case.name)
    if found is None:
        raise ValueError(f"{case.name}: the name does not end in _<eps|v|x0>_zsnr<0|1>, so the schedule is unknown")
    return Prediction(found[1]), published_schedule(zero_terminal_snr=found[2] == "1")
