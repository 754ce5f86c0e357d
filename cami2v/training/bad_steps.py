"""Steps that must not change the weights: a loss or gradient that is not finite, or a loss far beyond the usual."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

REMEMBERED_LOSSES = 100
"""Losses of good steps whose median is the usual loss."""
_FEWEST_LOSSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BadStepSettings:
    """Settings of conf/faults."""

    bad_step: Literal["stop", "skip"]
    """What a run does after a bad step; the step's update is not made in either case."""
    bad_steps_in_a_row: int
    """With `skip`: more than this many stop the run."""
    loss_explosion: float | None
    """A loss above this many times the median of the last 100 good steps is bad; None: any finite loss is good."""

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.bad_steps_in_a_row < 1:
            raise ValueError(f"faults.bad_steps_in_a_row: got {self.bad_steps_in_a_row}, expected at least 1")
        if self.loss_explosion is not None and self.loss_explosion <= 1:
            raise ValueError(f"faults.loss_explosion: got {self.loss_explosion}, expected a factor above 1, or null")

    def explodes(self, loss: float, earlier: Sequence[float]) -> bool:
        """Tell whether a finite loss is beyond the limit; never before twenty good steps."""
        if self.loss_explosion is None or len(earlier) < _FEWEST_LOSSES or not math.isfinite(loss):
            return False
        return loss > self.loss_explosion * statistics.median(earlier)
