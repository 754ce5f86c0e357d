"""What this machine can do at most, measured: arithmetic of a large matrix product, bytes of a large copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIDE = {"cpu": 1536, "cuda": 8192}
"""Of the square matrices."""
COPIED = {"cpu": 2**26, "cuda": 2**30}
"""Bytes of the buffer."""
ROUNDS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Operations and bytes per second; bytes read and bytes written both count."""

    operations: float
    bytes: float
    what: str

    def floor(self, operations: float, moved: float) -> float:
        """Return the seconds below which nothing that does these operations and moves these bytes can come."""
        return max(operations / self.operations, moved / self.bytes)


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Multiply and copy, after a warm-up, and take the medians."""
    side = SIDE[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = _median(lambda: left @ right, device)
    source = torch.empty(COPIED[device.type], dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copied = _median(lambda: target.copy_(source), device)
    operations, moved = 2 * side**3 / product, 2 * source.numel() / copied
    name = str(dtype).removeprefix("torch.")
    return Ceilings(
        operations=operations,
        bytes=moved,
        what=f"{name} product of {side} x {side} matrices {operations / 1e12:.3g} TFLOP/s, copy of"
        f" {source.numel() / 2**20:.0f} MiB {moved / 1e9:.3g} GB/s (read and written), medians of {ROUNDS}",
    )


def clock(device: torch.device) -> float:
    """Read the time when everything asked of a GPU is done; on the CPU this process's CPU seconds.

    Other work on the machine disturbs those little; with several threads they are the threads' sum.
    """
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _median(run: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(ROUNDS + 1):
        start = clock(device)
        run()
        seconds.append(clock(device) - start)
    return statistics.median(seconds[1:])
