"""Build our kernels for GPUs that need not be here, from the very launches of both passes: what they take of a chip."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton  # type: ignore[import-untyped]
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]

from cami2v.attention import choice
from cami2v.attention.core import attend
from tests.cami2v.attention.bands_cases import bands, tokens

SHARED_BYTES = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}
"""What a program may have of it, by compute capability (CUDA C++ Programming Guide, technical specifications)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What one program takes; bytes."""

    kernel: str
    shared: int
    stack: int
    """Of a thread: registers that did not fit."""


class _Chip:
    """Stands in for the driver of a GPU, as far as building goes."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return int(self._target.arch)  # builds are kept by device

    def get_current_stream(self, device: int) -> int:
        return 0


def builds(monkeypatch: pytest.MonkeyPatch, capability: int, dtype: torch.dtype, head_width: int) -> list[Build]:
    """Return what both passes of an attention would launch, one by one."""
    found = []

    def build(kernel: Any, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **settings: Any) -> None:
            built = kernel.warmup(*arguments, grid=grid, **settings)
            found.append(
                Build(
                    kernel=kernel.fn.__name__, shared=built.metadata.shared, stack=_stack(built.asm["cubin"])
                )
            )  # fmt: skip

        return launch

    described = bands("random", batch=1, rows=5, columns=7)
    query, key, value = (x.to(dtype).requires_grad_() for x in tokens(described, registers=4, width=2 * head_width))
    monkeypatch.setattr(choice, "interpreted", lambda: True)
    monkeypatch.setattr(triton.runtime.JITFunction, "__getitem__", build)
    monkeypatch.setattr(triton.runtime.driver, "_active", _Chip(capability))
    output = attend(query, key, value, num_heads=2, mask=described, always_visible=4, backend="triton")
    torch.autograd.backward(output, torch.ones_like(output))
    return found


def _stack(cubin: bytes) -> int:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, check=True).stdout
    found = re.search(rb"STACK:(\d+)", usage)
    assert found is not None, usage
    return int(found[1])
