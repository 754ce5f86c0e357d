"""The published evaluator's numbers (CamI2V, arXiv 2410.15957) from our estimates, its defects included and named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from cami2v.evaluation.measures.base import Attempt
from cami2v.evaluation.summary import SetSummary
from cami2v.evaluation.trials import OUTLIER_DEVIATIONS, MergedTrials, merge_trials, summary

COLUMNS = {"RotErr_sum_rad": "RotErr", "TransErr_sum": "TransErr", "CamMC_sum": "CamMC"}
"""Figures of the published table that come from estimated paths."""

REMARKS = (
    "Not reproduced here: the estimator's camera model (SIMPLE_PINHOLE with fx alone), a setting of the estimator.",
    "A difference that stays: published evaluations left out what COLMAP and GLOMAP could not register; here, also "
    "what the bounds refuse (mirrored, collapsed, inconsistent).",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The table's row after one more of the published steps."""

    name: str
    clips: int
    entries: int
    """Trials that count."""
    figures: dict[str, float | None]
    effect: str
    """What the step did here."""


def published_procedure(
    clip_ids: Sequence[str], attempts: Sequence[Sequence[Attempt]], ours: SetSummary
) -> list[dict[str, Any]]:
    """Return the way from our table to the published one, step by step; `attempts` by clip, in the order of names.

    Steps without a single entry left have None for figures.
    """
    trials = [
        {clip_id: _row(own[number]) for clip_id, own in zip(clip_ids, attempts, strict=True) if _succeeded(own, number)}
        for number in range(max((len(own) for own in attempts), default=0))
    ]
    names = {name for rows in trials for name in rows}
    everything, entries = sum(len(own) for own in attempts), sum(len(rows) for rows in trials)
    steps = [
        _ours(ours, everything),
        Step(
            name="failures left out",
            clips=len(names),
            entries=entries,
            figures=_figures(_medians(trials)),
            effect=f"{len(clip_ids) - len(names)} of {len(clip_ids)} clips and {everything - entries} of {everything} "
            "trials vanish without a trace",
        ),
    ]
    if entries:
        steps += _merged(trials, entries)
    return [asdict(step) for step in steps]


def _merged(trials: Sequence[Mapping[str, np.ndarray]], entries: int) -> list[Step]:
    everything, merged = merge_trials(trials), merge_trials(trials, compatibility="published")
    reach = math.sqrt(entries - 1)
    dropped = f"{len(merged.dropped)} of {entries} trials dropped" + _named([name for name, _ in merged.dropped])
    if reach <= OUTLIER_DEVIATIONS:
        dropped += f": among {entries} entries none can be further than {reach:.1f} deviations off, however wrong"
    return [
        Step(
            name="mean over a clip's trials, not their median",
            clips=len(everything.names),
            entries=entries,
            figures=_figures(everything.mean),
            effect="one bad trial moves its clip",
        ),
        Step(
            name=f"trials beyond {OUTLIER_DEVIATIONS:g} standard deviations dropped, in one pass",
            clips=len(merged.names),
            entries=sum(merged.trials),
            figures=_figures(merged.mean),
            effect=dropped,
        ),
        _first_row_lost(merged),
    ]


def _first_row_lost(merged: MergedTrials) -> Step:
    left = merged.mean[1:]
    return Step(
        name="first row taken for a header",
        clips=len(left),
        entries=sum(merged.trials[1:]),
        figures=_figures(summary(merged.mean, compatibility="published")[None] if len(left) else left),
        effect=f"clip {merged.names[0]} does not count",
    )


def _ours(ours: SetSummary, trials: int) -> Step:
    return Step(
        name="this report, every clip counted",
        clips=ours.clips,
        entries=trials,
        figures={name: ours.figures[name].penalised_mean for name in COLUMNS},
        effect="a failed clip counts as a motionless camera, or as the worst clip",
    )


def _succeeded(attempts: Sequence[Attempt], number: int) -> bool:
    return number < len(attempts) and attempts[number].failure is None


def _row(attempt: Attempt) -> Float64[np.ndarray, " metrics"]:
    return np.array([attempt.values[name] for name in COLUMNS], dtype=np.float64)


def _medians(trials: Sequence[Mapping[str, np.ndarray]]) -> Float64[np.ndarray, "names metrics"]:
    return merge_trials(trials).median if any(trials) else np.empty((0, len(COLUMNS)))


def _figures(rows: Float64[np.ndarray, "names metrics"]) -> dict[str, float | None]:
    means = rows.mean(axis=0).tolist() if len(rows) else [None] * len(COLUMNS)
    return dict(zip(COLUMNS, means, strict=True))


def _named(names: Sequence[str]) -> str:
    shown = sorted(set(names))
    return f" (of {', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''})" if shown else ""
