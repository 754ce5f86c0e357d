"""Variants timed side by side: in every round each takes its turn, so that a slow moment slows all of them.

Compare variants by the ratio within each round, and give its median and spread; seconds of different rounds or runs are
not comparable on a shared machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of some numbers, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise; raises statistics.StatisticsError for no values."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))

    def text(self, digits: int) -> str:
        """Return `median (low to high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def take_turns(
    variants: Mapping[str, Callable[[int], object]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Return each variant's seconds per round, after one round of warming up.

    Each variant is called with the number of the round, -1 while warming up; who begins changes from round to round.
    The default clock counts this process's CPU seconds, which other jobs on the machine disturb little.
    """
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            start = clock()
            variants[name](number)
            if number >= 0:
                seconds[name].append(clock() - start)
    return seconds


def times_as_fast(reference: Sequence[float], variant: Sequence[float]) -> Spread:
    """Return how many times as fast as the reference a variant was, round by round."""
    return Spread.of([theirs / mine for theirs, mine in zip(reference, variant, strict=True)])
