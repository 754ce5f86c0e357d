"""Where the gradient of a step lies, module by module."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def module_of(name: str) -> str:
    """Return the column a trained tensor counts in.

    `camera` is the camera method's own, wherever its weights sit in the backbone; others go by their part and, in the
    backbone, by its block list: `backbone.input_blocks`.
    """
    parts = name.split(".")
    if "camera" in parts:
        return "camera"
    return ".".join(parts[:2]) if parts[0] == "backbone" else parts[0]


def squared_norms(trainable: Mapping[str, nn.Parameter], *, zero: bool) -> dict[str, float]:
    """Return the sum of squared gradients by module (collective under `zero`).

    Under DDP gradients are averaged over processes by then. DeepSpeed has them between its backward pass and its step
    only, spread over processes; each is put together, one after the other.
    """
    sums: dict[str, Tensor] = {}
    for name, parameter in trainable.items():
        gradient = _zero_gradient(parameter) if zero else parameter.grad
        if gradient is not None:
            square = gradient.detach().double().square().sum()
            module = module_of(name)
            sums[module] = sums[module] + square if module in sums else square
    if not sums:
        return {}
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))


def _zero_gradient(parameter: nn.Parameter) -> Tensor | None:
    # Imported here: DeepSpeed takes seconds, and other engines do without it.
    from deepspeed.utils import safe_get_full_grad

    gradient: Tensor | None = safe_get_full_grad(parameter)
    return gradient
