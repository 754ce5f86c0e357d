"""Initialisation shared by backbones and camera adapters."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def zero_initialised(module: Module) -> Module:
    """Set all parameters to zero, so that the branch starts as a no-op."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
