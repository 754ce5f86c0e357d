"""Weights that follow from released parameter names, so that none have to be stored."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from cami2v.checkpoints.released_names import our_names, released_names, to_our_shape, to_released_shape
from tools.parity.cases import generator
from tools.parity.checks import Checks
from tools.parity.network_cases import ModelCase

PREFIXES = {
    "whole_module": ("", ""),
    "unet": ("backbone.", "model.diffusion_model."),
    "pose_encoder": ("camera.pose_encoder.", "pose_encoder."),
    "resampler": ("image_projector.", "image_proj_model."),
    "vae": ("first_stage.", "first_stage_model."),
    "text": ("text_encoder.", "cond_stage_model."),
    "image": ("image_encoder.", "embedder."),
    "depth": ("depth.", "depth_predictor."),
}
"""Where a sub-module sits in a whole model of ours and in a whole released one."""

SUM = 1e-9
"""Of the sums of all weights, relative to the sum of their magnitudes; the same float32 numbers, added in float64."""


def published_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Make the value that follows from a parameter's released name."""
    numbers = np.asarray(generator(name).standard_normal(shape)).astype(np.float32)
    if len(shape) >= 2:
        numbers = (numbers / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    elif name.endswith(".weight"):
        numbers = np.asarray(1 + 0.1 * numbers, dtype=np.float32)
    else:
        numbers = np.asarray(0.1 * numbers, dtype=np.float32)
    return torch.from_numpy(numbers.reshape(shape))


def give_weights(checks: Checks, case: ModelCase, part: str, module: nn.Module) -> None:
    """Fill a module by the rule; compare its names and shapes, one to one, and the sums of all weights."""
    ours_prefix, released_prefix = PREFIXES[part]
    stored = case.parameters(part)
    parameters = {f"{ours_prefix}{name}": parameter for name, parameter in module.named_parameters()}
    translation = our_names(f"{released_prefix}{name}" for name in stored)
    released = {our: name.removeprefix(released_prefix) for name, our in translation.ours.items()}
    unused = {name.removeprefix(released_prefix) for name in translation.unused}

    expect_none(checks, f"{part}: released names that no rule explains", translation.unknown)
    expect_none(checks, f"{part}: parameters without a released one", parameters.keys() - released.keys())
    expect_none(checks, f"{part}: released parameters without one of ours", released.keys() - parameters.keys())
    common = {our: parameter for our, parameter in parameters.items() if our in released}
    back = released_names(common)
    astray = [our for our, name in back.items() if name != f"{released_prefix}{released[our]}"]
    expect_none(checks, f"{part}: names that do not translate back", astray)
    shapes = {our: tuple(to_released_shape(our, parameter.detach()).shape) for our, parameter in common.items()}
    other = [f"{our} {shape}" for our, shape in shapes.items() if shape != stored[released[our]]]
    expect_none(checks, f"{part}: shapes unlike the released ones", other)

    filled = [_fill(our, parameter, released[our], shapes[our]) for our, parameter in common.items()]
    left_over = [published_weight(name, stored[name]) for name in sorted(unused)]
    _compare_sums(checks, case, part, [*filled, *left_over])


def fill(part: str, module: nn.Module) -> None:
    """Fill a module by the rule and compare nothing: for one that is no released sub-module."""
    ours_prefix, released_prefix = PREFIXES[part]
    parameters = {f"{ours_prefix}{name}": parameter for name, parameter in module.named_parameters()}
    for our, name in released_names(parameters).items():
        shape = tuple(to_released_shape(our, parameters[our].detach()).shape)
        _fill(our, parameters[our], name.removeprefix(released_prefix), shape)


def expect_none(checks: Checks, name: str, offenders: Iterable[str]) -> None:
    """Record the number of offenders, none allowed, and the first of them by name."""
    found = sorted(offenders)
    shown = f"{name}: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}" if found else name
    checks.at_most(shown, float(len(found)), 0.0)


def _fill(our_name: str, parameter: nn.Parameter, released_name: str, shape: tuple[int, ...]) -> Tensor:
    value = published_weight(released_name, shape)
    with torch.no_grad():
        parameter.copy_(to_our_shape(our_name, value))
    return value


def _compare_sums(checks: Checks, case: ModelCase, part: str, values: list[Tensor]) -> None:
    published = case.entry["weights"][part]
    checks.equal(f"{part}: number of tensors", len(values), published["n_param_tensors"])
    checks.equal(f"{part}: number of weights", sum(value.numel() for value in values), published["n_params"])
    total = sum(value.double().sum().item() for value in values)
    magnitude = sum(value.double().abs().sum().item() for value in values)
    checks.at_most(f"{part}: sum of weights", abs(total - published["sum"]) / published["abs_sum"], SUM)
    checks.at_most(f"{part}: sum of magnitudes", abs(magnitude - published["abs_sum"]) / published["abs_sum"], SUM)
