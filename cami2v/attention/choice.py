"""Which backend computes attention: `attention=auto|sdpa|xformers|flex|triton`, and what this machine can do."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Literal

import torch

from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask

Backend = Literal["sdpa", "xformers", "flex", "triton"]
AttentionChoice = Literal["auto", "sdpa", "xformers", "flex", "triton"]

CHOICES: tuple[AttentionChoice, ...] = ("auto", "sdpa", "xformers", "flex", "triton")


def automatic(*, bands: bool, cuda: bool) -> Backend:
    """Return what `auto` takes: FlexAttention for epipolar bands on CUDA, else SDPA."""
    return "flex" if bands and cuda else "sdpa"


def pick(choice: AttentionChoice, mask: AttentionMask | None, *, device: torch.device, differentiated: bool) -> Backend:
    """Return the backend of one call. Raises ValueError for a choice that cannot do what is asked here."""
    if choice == "auto":
        return automatic(bands=isinstance(mask, EpipolarBands), cuda=device.type == "cuda")
    if choice == "xformers" and mask is not None:
        raise refusal(choice, "it has no masks described as bands, which epipolar attention needs")
    if choice == "xformers" and device.type != "cuda":
        raise refusal(choice, f"it needs CUDA, the model is on {device.type}")
    if choice == "triton" and device.type != "cuda" and not interpreted():
        raise refusal(choice, f"it needs CUDA, the model is on {device.type}")
    if choice == "flex" and differentiated and device.type != "cuda":
        raise refusal(choice, f"its backward pass needs CUDA, the model is on {device.type}")
    return choice


def machine_obstacle(backend: Backend) -> str | None:
    """Say why a backend does not run on this machine at all, or None."""
    if backend not in ("xformers", "triton") or (backend == "triton" and interpreted()):
        return None
    if not torch.cuda.is_available():
        return "it needs a CUDA device, this machine has none"
    return _import_error("xformers.ops" if backend == "xformers" else "triton")


def interpreted() -> bool:
    """Tell whether Triton's interpreter is on, which runs kernels on any device, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def training_obstacle(backend: Backend) -> str | None:
    """Say why a backend does not train on this machine, or None."""
    if backend == "flex" and not torch.cuda.is_available():
        return "its backward pass needs a CUDA device, this machine has none"
    return machine_obstacle(backend)


def check_training(choice: AttentionChoice) -> None:
    """Raise ValueError for a choice that cannot train on this machine."""
    obstacle = None if choice == "auto" else training_obstacle(choice)
    if obstacle is not None:
        raise refusal(choice, obstacle)


def refusal(choice: AttentionChoice, reason: str) -> ValueError:
    """Make the error for a backend that cannot be had."""
    return ValueError(f"attention={choice}: {reason}; allowed: {', '.join(CHOICES)} (auto takes what works)")


@functools.cache
def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        cure = "it comes with PyTorch for CUDA on Linux" if module == "triton" else "pip install 'cami2v[xformers]'"
        return f"it cannot be imported ({' '.join(str(error).split())[:120]}), {cure}"
    return None
