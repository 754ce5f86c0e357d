"""Intervals over clips: they cover at their rate, move with the data and not with its order, and refuse to guess."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cami2v.evaluation.bootstrap import Bootstrap, Interval
from cami2v.evaluation.measures.base import Figure
from cami2v.evaluation.summary import summarise_figure

BOOTSTRAP = Bootstrap(level=0.95, resamples=1000, seed=0)
LOWER = Figure(name="error", label="error", unit="", better="lower", meaning="an error")


def covered(interval: Callable[[np.ndarray], Interval | None], truth: float, draw: Callable[[], np.ndarray]) -> float:
    """Share of 400 repetitions whose interval holds the truth."""
    ends = [interval(draw()) for _ in range(400)]
    return float(np.mean([each is not None and each[0] <= truth <= each[1] for each in ends]))


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_intervals_cover_at_the_stated_rate(level: float) -> None:
    generator = np.random.default_rng(1)
    bootstrap = Bootstrap(level=level, resamples=1000, seed=0)

    def skewed() -> np.ndarray:
        return np.exp(0.5 * generator.standard_normal(100))

    # Three standard deviations of 400 repetitions; seed and draws are fixed.
    margin = 3 * math.sqrt(level * (1 - level) / 400)
    assert covered(bootstrap.mean, math.exp(0.125), skewed) == pytest.approx(level, abs=margin)
    assert covered(bootstrap.median, 1.0, skewed) == pytest.approx(level, abs=margin)
    assert covered(bootstrap.mean, math.exp(0.125) * 1.1, skewed) < level - 0.1, "another number is not covered"


def test_a_rate_has_wilsons_interval() -> None:
    # Wilson, JASA 22 (1927), for 5 of 50: 0.0435 to 0.2136.
    assert BOOTSTRAP.proportion(5, 50) == pytest.approx((0.04348, 0.21360), abs=1e-4)
    low, high = BOOTSTRAP.proportion(0, 50) or (math.nan, math.nan)
    assert low == 0
    assert high == pytest.approx(0.07135, abs=1e-4)
    assert BOOTSTRAP.proportion(0, 0) is None


def test_intervals_are_of_the_values_and_not_of_their_order() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=40)
    for interval in (BOOTSTRAP.mean, BOOTSTRAP.median):
        assert interval(values) == interval(values[::-1].copy()) == interval(values)
        low, high = interval(values) or (math.nan, math.nan)
        moved = interval(10 * values + 3) or (math.nan, math.nan)
        assert moved == pytest.approx((10 * low + 3, 10 * high + 3))
        wider = Bootstrap(level=0.99, resamples=1000, seed=0)
        assert wider.mean(values) != BOOTSTRAP.mean(values)


@pytest.mark.parametrize("clips", [20, 21])
def test_medians_are_drawn_as_from_samples(clips: int) -> None:
    values = np.sort(np.random.default_rng(2).exponential(size=clips))
    samples = np.median(values[np.random.default_rng(3).integers(0, clips, (40_000, clips))], axis=1)
    drawn = Bootstrap(level=0.95, resamples=40_000, seed=4)._medians(values)
    for share in (0.05, 0.3, 0.5, 0.8, 0.95):
        place = float(np.mean(samples <= np.quantile(drawn, share)))
        before = float(np.mean(samples < np.quantile(drawn, share)))
        assert before - 0.02 <= share <= place + 0.02


def test_equal_values_have_no_width() -> None:
    assert BOOTSTRAP.mean(np.zeros(12)) == BOOTSTRAP.median(np.zeros(12)) == (0.0, 0.0)


def test_too_few_clips_and_infinite_values_have_no_interval() -> None:
    for interval in (BOOTSTRAP.mean, BOOTSTRAP.median):
        assert interval(np.arange(9.0)) is None
        assert interval(np.arange(10.0)) is not None
        assert interval(np.array([*range(10), math.inf])) is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"level": 95.0}, "evaluation.bootstrap.level=95.0: must be between 0 and 1"),
        ({"resamples": 10}, "at least 100"),
    ],
)
def test_wrong_settings_name_their_key(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bootstrap(**{"level": 0.95, "resamples": 1000, "seed": 0, **setting})


def test_failures_widen_the_penalised_interval_and_have_a_rate() -> None:
    values: list[float | None] = list(np.random.default_rng(5).gamma(2.0, size=30))
    fine = summarise_figure(LOWER, values, [{"error": 50.0}] * 30, BOOTSTRAP)
    assert fine.penalised_mean_interval == fine.mean_interval
    some = summarise_figure(LOWER, [None, None, *values[2:]], [{"error": 50.0}] * 30, BOOTSTRAP)
    assert some.mean_interval is not None
    assert some.penalised_mean_interval is not None
    assert some.mean is not None
    assert some.penalised_mean is not None
    assert some.mean_interval[0] < some.mean < some.mean_interval[1] < some.penalised_mean
    assert some.penalised_mean_interval[1] > some.penalised_mean
    assert some.failure_rate == pytest.approx(2 / 30)
    assert some.failure_rate_interval == pytest.approx((0.01847, 0.21323), abs=1e-4)
    unknown = summarise_figure(LOWER, [None, *values[1:]], [{}] * 30, BOOTSTRAP)
    assert unknown.penalised_mean is None
    assert unknown.penalised_mean_interval is None
    without = summarise_figure(LOWER, values, [{}] * 30)
    assert without.mean == fine.mean
    assert without.mean_interval is None
