"""How far a call of the pipeline is, and the way to stop it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


class SamplingCancelledError(Exception):
    """The caller asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a call is; a step is one denoising step of one batch."""

    step: int
    steps: int
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Return the time left at the speed so far."""
        return self.seconds / self.step * (self.steps - self.step)


OnProgress = Callable[[Progress], None]


class Watch:
    """Tells a caller how far a call is, and asks whether to stop."""

    def __init__(self, *, steps: int, on_progress: OnProgress | None, cancel: Callable[[], bool] | None) -> None:
        self.steps = steps
        self.on_progress = on_progress
        self.cancel = cancel
        self.done = 0
        self.start = time.monotonic()

    def step_done(self, step: int, steps: int) -> None:
        """Count a step. Raises SamplingCancelledError where the caller says so."""
        self.done += 1
        if self.on_progress is not None:
            # Some spacings visit fewer timesteps than asked for.
            total = max(self.steps, self.done)
            self.on_progress(Progress(step=self.done, steps=total, seconds=time.monotonic() - self.start))
        if self.cancel is not None and self.cancel():
            raise SamplingCancelledError(f"stopped after {self.done} of {self.steps} steps")
