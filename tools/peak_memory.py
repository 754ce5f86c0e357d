"""The most memory a piece of work holds at once, on a GPU or in this process."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def returning_process() -> Iterator[Executor]:
    """Give a new process whose allocator hands every tensor's memory back at once.

    Otherwise resident memory also counts the holes between tensors, up to twice of what they take themselves.
    """
    threshold = "MALLOC_MMAP_THRESHOLD_"  # of glibc, read when a process starts
    before = os.environ.get(threshold)
    os.environ[threshold] = str(64 * 1024)
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            yield process
    finally:
        if before is None:
            del os.environ[threshold]
        else:
            os.environ[threshold] = before
