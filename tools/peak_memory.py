"""The most memory a piece of work holds at once, on a GPU or in this process."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import psutil
import torch


def reset_peak(device: torch.device) -> int:
    """Return the bytes in use, from which the next peak is counted."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    # What a warm-up has freed is given back first: it would hide as much of what follows.
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        gc.collect()
        give_back(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark of resident memory
    return int(psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes that were in use since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024
