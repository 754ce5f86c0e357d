"""torch.compile of a denoiser: what can be asked for, and what CUDA graphs ask of whoever calls it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.compiler import list_backends

from cami2v.backbones.base import VideoBackbone

CompileMode = Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Modes of inductor, by PyTorch's names; the first two replay CUDA graphs."""


def uses_graphs(backend: str | None, mode: CompileMode | None) -> bool:
    """Tell whether a compiled denoiser is a CUDA graph: its outputs then lie where the next call writes its own."""
    return backend == "cudagraphs" or mode in ("reduce-overhead", "max-autotune")


def check_compilation(backend: str | None, mode: CompileMode | None, *, prefix: str = "") -> None:
    """Raise ValueError for a backend that there is not, and a mode without inductor; `prefix` is that of the keys."""
    if backend is not None and backend not in list_backends(exclude_tags=()):
        raise ValueError(
            f"{prefix}compile: got {backend!r}, expected null or a backend of torch.compile: "
            f"{', '.join(list_backends(exclude_tags=()))}"
        )
    if mode is not None and backend != "inductor":
        raise ValueError(
            f"{prefix}compile_mode: got {mode}, a mode of inductor, but {prefix}compile={backend or 'null'}; set "
            f"{prefix}compile=inductor, or {prefix}compile_mode=null"
        )


def check_graphs(backend: str | None, mode: CompileMode | None, *, on_gpu: bool, prefix: str = "") -> None:
    """Raise ValueError for CUDA graphs where the denoiser is not on a GPU."""
    if uses_graphs(backend, mode) and not on_gpu:
        raise ValueError(
            f"{prefix}{asked_for(backend, mode)}, which replays CUDA graphs and needs a GPU, and there is none; use "
            f"{prefix}compile=inductor with {prefix}compile_mode=null"
        )


def asked_for(backend: str | None, mode: CompileMode | None) -> str:
    """Begin a message: the key that asks for CUDA graphs, and its value."""
    return f"compile: got {backend}" if mode is None else f"compile_mode: got {mode}"


def compile_denoiser(denoiser: nn.Module, backend: str, mode: CompileMode | None) -> None:
    """Have a denoiser compiled at its next call, in place: names in checkpoints stay."""
    # Shapes never change within a run; without this a second size would be traced with symbols.
    denoiser.compile(backend=backend, mode=mode, dynamic=False)
    if isinstance(denoiser, VideoBackbone):
        denoiser.overwrites_output = uses_graphs(backend, mode)


def new_iteration(denoiser: nn.Module) -> None:
    """Tell CUDA graphs, where the denoiser is one, that nobody needs what it returned before."""
    if isinstance(denoiser, VideoBackbone) and denoiser.overwrites_output:
        torch.compiler.cudagraph_mark_step_begin()
