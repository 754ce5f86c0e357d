"""What a stage ran on and with: a model's videos, and what is measured of them, may depend on it."""

from __future__ import annotations

from importlib import metadata
from platform import python_version
from typing import Any

import torch

from cami2v.training.system_info import process_info, software

_REPORTED = ("cami2v", "pycolmap", "torch", "numpy", "av", "decord")
_GENERATING = ("xformers", "torchvision")


def hardware() -> dict[str, Any]:
    """Return processor, cores and device of this process."""
    info = process_info()
    return {"cpu": info["cpu"], "cores": info["cores"], "device": info["device"]["name"]}


def versions(*more: str) -> dict[str, str]:
    """Return the versions of what decides a result."""
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    found = {name: metadata.version(name) for name in (*_REPORTED, *more) if name in installed}
    return {"python": python_version(), **found}


def generating_machine() -> dict[str, Any]:
    """Return hardware and versions that generate; the driver only where there is a GPU."""
    gpu = {"cuda": torch.version.cuda, "driver": software()["nvidia_driver"]} if torch.cuda.is_available() else {}
    return {**hardware(), **versions(*_GENERATING), **gpu}


def measuring_machine() -> dict[str, Any]:
    """Return hardware and versions that measure."""
    return {**hardware(), **versions()}
