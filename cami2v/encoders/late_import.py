"""Packages that take seconds to import, imported when a part is built and not when its settings are checked."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch


def imported(module: str) -> ModuleType:
    """Import a module; its constants are real also where parts are being built on the meta device."""
    with torch.device("cpu"):
        return importlib.import_module(module)
