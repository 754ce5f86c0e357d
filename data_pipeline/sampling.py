"""Choose which frames of a clip to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

RandomInteger = Callable[[int, int], int]
"""Draws an integer between two bounds, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSelection:
    """Frame numbers in a clip, `stride` apart."""

    indices: Int64[np.ndarray, " frames"]
    stride: int


class SampleRandom:
    """Integers drawn from one sample's seed."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=seed)

    def __call__(self, low: int, high: int) -> int:
        """Draw an integer between `low` and `high`, both included."""
        return low + (int(self._bits.random_raw()) * (high - low + 1) >> 64)


def select_frames(
    *, available: int, frames: int, stride: int | Sequence[int], random_integer: RandomInteger, where: str
) -> FrameSelection:
    """Choose `frames` of `available` frames: a stride (fixed, or uniform in [min, max]), then a start.

    CamI2V's rule. A clip too short for the stride gets a smaller one: a fixed one counts down
    while not even half of what it needs is there, then `available // frames`, which is not always the largest that
    fits. Raises ValueError, naming `where`, for fewer than `frames` frames.
    """
    if available < frames:
        raise ValueError(
            f"{where}: {available} frames, fewer than data.frames={frames}; "
            f"lower data.frames, or pack with pack.min_frames={frames}"
        )
    fixed = isinstance(stride, int)
    step = stride if isinstance(stride, int) else random_integer(stride[0], stride[1])
    while available < _span(frames, step):
        count_down = fixed and available < 0.5 * _span(frames, step)
        step = max(step - 1, 1) if count_down else available // frames
    slack = available - _span(frames, step)
    start = random_integer(0, slack) if slack > 0 else 0
    return FrameSelection(indices=start + step * np.arange(frames, dtype=np.int64), stride=step)


def first_frames(*, available: int, frames: int, stride: int | Sequence[int], where: str) -> FrameSelection:
    """Choose frames 0, stride, 2 stride, ...: the same ones every time. A range of strides gives its middle.

    Shortens the stride and raises like `select_frames`.
    """
    step = stride if isinstance(stride, int) else (stride[0] + stride[1]) // 2
    return select_frames(
        available=available, frames=frames, stride=step, random_integer=lambda low, high: low, where=where
    )


def _span(frames: int, stride: int) -> int:
    return stride * (frames - 1) + 1
