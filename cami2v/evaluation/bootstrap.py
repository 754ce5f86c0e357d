"""How far a table's number could have been another one, had other clips been drawn: bootstrap intervals over clips.

Means get bias-corrected and accelerated intervals (BCa: Efron, JASA 82, 1987), medians percentile intervals. Chosen by
simulation (docs/evaluate.md): camera errors are skewed, and there BCa covers better than a mean's percentile interval;
the studentised bootstrap covers better still, by lengths that say nothing where a few clips are far off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

Interval = tuple[float, float]
Values = Float64[np.ndarray, " clips"]

FEWEST_CLIPS = 10
"""Fewer get no interval: it would cover too rarely."""
_DRAWS_AT_ONCE = 1 << 21
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Intervals from `resamples` draws of as many clips as there are; the same for the same values, in any order."""

    level: float
    """Share of repetitions in which the interval is to cover the truth."""
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"evaluation.bootstrap.level={self.level}: must be between 0 and 1, such as 0.95")
        if self.resamples < 100:
            raise ValueError(f"evaluation.bootstrap.resamples={self.resamples}: must be at least 100")

    def mean(self, values: Values) -> Interval | None:
        """Return the interval of a mean; None for fewer than ten values, or one that is not finite."""
        if not _enough(values):
            return None
        ordered = np.sort(values)
        means = np.concatenate([ordered[draw].mean(axis=1) for draw in self._draws(len(ordered))])
        return _ends(means, self._corrected(ordered, means))

    def median(self, values: Values) -> Interval | None:
        """Return the interval of a median; None for fewer than ten values, or one that is not finite."""
        if not _enough(values):
            return None
        return _ends(self._medians(np.sort(values)), self._shares())

    def proportion(self, count: int, total: int) -> Interval | None:
        """Return Wilson's interval of a rate, closed form: a bootstrap of no failures would say "certainly none"."""
        if total < 1:
            return None
        z = _NORMAL.inv_cdf((1 + self.level) / 2)
        rate, weight = count / total, z * z / total
        middle = (rate + weight / 2) / (1 + weight)
        half = z / (1 + weight) * float(np.sqrt(rate * (1 - rate) / total + weight / (4 * total)))
        # Rounding would leave 1e-17 where nothing failed.
        return (0.0 if count == 0 else middle - half, 1.0 if count == total else middle + half)

    def _shares(self) -> tuple[float, float]:
        return (1 - self.level) / 2, (1 + self.level) / 2

    def _draws(self, clips: int) -> Iterator[Int64[np.ndarray, "resamples clips"]]:
        generator, left = np.random.default_rng(self.seed), self.resamples
        while left:
            count = min(left, max(1, _DRAWS_AT_ONCE // clips))
            yield generator.integers(0, clips, (count, clips))
            left -= count

    def _medians(self, ordered: Values) -> Float64[np.ndarray, " resamples"]:
        """Draw medians directly: a uniform number picks a clip, and the middle ones of many are Beta variates."""
        generator, clips = np.random.default_rng(self.seed), len(ordered)
        below = (clips - 1) // 2
        lower = generator.beta(below + 1, clips - below, self.resamples)
        upper = lower
        if clips % 2 == 0:
            # Of the numbers above the lower middle one, the smallest.
            upper = lower + (1 - lower) * generator.beta(1, clips - below - 1, self.resamples)
        middle = np.stack([lower, upper])
        return ordered[np.minimum((middle * clips).astype(np.int64), clips - 1)].mean(axis=0)

    def _corrected(self, values: Values, means: Float64[np.ndarray, " resamples"]) -> tuple[float, float]:
        mean = values.mean()
        below = ((means < mean).mean() + (means <= mean).mean()) / 2
        floor = 1 / self.resamples
        bias = _NORMAL.inv_cdf(min(max(float(below), floor), 1 - floor))
        centred = values - mean
        spread = float((centred**2).sum()) ** 1.5
        skew = float((centred**3).sum()) / (6 * spread) if spread > 0 else 0.0
        shares = []
        for share in self._shares():
            z = bias + _NORMAL.inv_cdf(share)
            shares.append(_NORMAL.cdf(bias + z / (1 - skew * z)))
        return shares[0], shares[1]


def _enough(values: Values) -> bool:
    return len(values) >= FEWEST_CLIPS and bool(np.isfinite(values).all())


def _ends(figures: Float64[np.ndarray, " resamples"], shares: tuple[float, float]) -> Interval:
    low, high = np.quantile(figures, shares)
    return float(low), float(high)
