"""What the measures say of a video set as a whole: means with intervals, failures counted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cami2v.evaluation.bootstrap import Bootstrap, Interval
from cami2v.evaluation.measures.base import Figure, Measure, Row

Rows = Mapping[str, Sequence[Row]]
"""What one measure says of the clips, by video set, in clip order."""

Distances = Mapping[str, dict[str, Any]]
"""What one measure says of whole sets, by video set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSummary:
    """One figure of one video set. Means that are not finite are None, and so are intervals of too few clips."""

    mean: float | None
    """Over the clips that did not fail; None where there are none."""
    mean_interval: Interval | None
    median: float | None
    median_interval: Interval | None
    penalised_mean: float | None
    """Over all clips. A failed clip counts as its measure's penalty (a motionless estimate), or as the set's worst clip
    if that is worse: failing never pays. None where a failed clip has no penalty."""
    penalised_mean_interval: Interval | None
    """Of clips drawn together with what they count as."""
    counted: int
    failed: int
    failure_rate: float | None
    failure_rate_interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummary:
    """One video set. Every requested clip is in `clips`."""

    clips: int
    figures: dict[str, FigureSummary]
    """Of the measures that judge this set."""
    facts: dict[str, dict[str, Any]]
    """By measure: its counts and spreads."""
    distances: dict[str, dict[str, Any]]
    """By measure: numbers that belong to the set as a whole."""


def summarise(
    measures: Sequence[Measure],
    rows: Mapping[str, Rows],
    video_set: str,
    distances: Mapping[str, Distances],
    bootstrap: Bootstrap | None = None,
) -> SetSummary:
    """Summarise what the measures say of one video set; `rows` and `distances` by measure.

    No intervals without `bootstrap`.
    """
    judging = [measure for measure in measures if video_set in rows[measure.name]]
    figures: dict[str, FigureSummary] = {}
    for measure in judging:
        own = rows[measure.name][video_set]
        values = [measure.values(row) for row in own]
        penalties = [measure.penalties(row) for row in own]
        for figure in measure.figures:
            if values and figure.name in values[0]:
                column = [each[figure.name] for each in values]
                figures[figure.name] = summarise_figure(figure, column, penalties, bootstrap)
    between = {measure.name: distances.get(measure.name, {}).get(video_set, {}) for measure in judging}
    return SetSummary(
        clips=max((len(rows[measure.name][video_set]) for measure in judging), default=0),
        figures=figures,
        facts={measure.name: facts for measure in judging if (facts := measure.facts(rows[measure.name][video_set]))},
        distances={name: numbers for name, numbers in between.items() if numbers},
    )


def summarise_figure(
    figure: Figure,
    values: Sequence[float | None],
    penalties: Sequence[Mapping[str, float]],
    bootstrap: Bootstrap | None = None,
) -> FigureSummary:
    """Summarise a figure over the clips of a set; None is a failed clip, which counts as its penalty at least."""
    counted = np.array([value for value in values if value is not None], dtype=np.float64)
    counting = [value for value in counted_as(figure, values, penalties) if value is not None]
    everything = np.array(counting if len(counting) == len(values) else [], dtype=np.float64)
    failed = len(values) - len(counted)
    return FigureSummary(
        mean=_mean(counted),
        mean_interval=bootstrap.mean(counted) if bootstrap else None,
        median=finite(statistics.median(counted.tolist())) if len(counted) else None,
        median_interval=bootstrap.median(counted) if bootstrap else None,
        penalised_mean=_mean(everything),
        penalised_mean_interval=bootstrap.mean(everything) if bootstrap else None,
        counted=len(counted),
        failed=failed,
        failure_rate=failed / len(values) if values else None,
        failure_rate_interval=bootstrap.proportion(failed, len(values)) if bootstrap else None,
    )


def counted_as(
    figure: Figure, values: Sequence[float | None], penalties: Sequence[Mapping[str, float]]
) -> list[float | None]:
    """Return what every clip counts as in a mean over all; None for a failed one without penalty."""
    counted = [value for value in values if value is not None]
    worst = max if figure.better == "lower" else min
    return [
        value if value is not None else worst([penalty[figure.name], *counted]) if figure.name in penalty else None
        for value, penalty in zip(values, penalties, strict=True)
    ]


def finite(value: float | None) -> float | None:
    """Return the value, or None where JSON has no number for it."""
    return value if value is not None and math.isfinite(value) else None


def _mean(values: np.ndarray) -> float | None:
    return finite(statistics.fmean(values.tolist())) if len(values) else None
