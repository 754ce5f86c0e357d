"""Initialisation shared by backbones and camera adapters."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def zero_initialised(module: Module) -> Module:
    """Set all parameters to zero, so that the branch starts as a no-op."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


@torch.no_grad()
def randomise_zero_weights(backbone: nn.Module) -> None:
    """Draw the weights that start at zero, camera adapters excepted: what a smoke test has for trained ones."""
    for name, weight in backbone.named_parameters():
        if weight.ndim > 1 and ".camera." not in name and not weight.is_meta and not weight.any():
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
