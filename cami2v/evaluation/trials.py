"""Several trials of an evaluation in one table: a row per name, and the table's mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

Compatibility = Literal["published"]
Row = Float64[np.ndarray, " metrics"]

OUTLIER_DEVIATIONS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedTrials:
    """Per-name figures, names in the order in which the trials first mention them."""

    names: tuple[str, ...]
    mean: Float64[np.ndarray, "names metrics"]
    """Over the trials of a name."""
    median: Float64[np.ndarray, "names metrics"]
    trials: tuple[int, ...]
    """How many trials of a name were used."""
    dropped: tuple[tuple[str, int], ...]
    """Name and trial (counted from 0) of what was left out as an outlier; empty unless asked for."""


def merge_trials(trials: Sequence[Mapping[str, Row]], *, compatibility: Compatibility | None = None) -> MergedTrials:
    """Pool the metrics of all trials by name; a trial need not have every name.

    Nothing is dropped. `compatibility="published"` drops, in one pass, every entry with a metric more than ten
    standard deviations from the mean over all entries, and names of which nothing is left: among 101 entries or fewer
    no outlier, however gross, can be that far away.

    Raises ValueError where there are no entries, or one is not finite.
    """
    entries = [(name, trial, row) for trial, rows in enumerate(trials) for name, row in rows.items()]
    if not entries:
        raise ValueError(f"{len(trials)} trial(s) without a single entry; give the metrics of one clip or more")
    values = np.stack([row for _, _, row in entries])
    for (name, trial, row), finite in zip(entries, np.isfinite(values).all(axis=1), strict=True):
        if not finite:
            raise ValueError(
                f"{name}, trial {trial}: metrics {row.tolist()} are not all finite; leave failed trials out and count "
                "them"
            )
    kept = _within(values) if compatibility == "published" else np.ones(len(values), dtype=bool)
    rows_of: dict[str, list[Row]] = {name: [] for name, _, _ in entries}
    for (name, _, row), keep in zip(entries, kept, strict=True):
        if keep:
            rows_of[name].append(row)
    used = {name: np.stack(rows) for name, rows in rows_of.items() if rows}
    return MergedTrials(
        names=tuple(used),
        mean=np.stack([rows.mean(axis=0) for rows in used.values()]),
        median=np.stack([np.median(rows, axis=0) for rows in used.values()]),
        trials=tuple(len(rows) for rows in used.values()),
        dropped=tuple((name, trial) for (name, trial, _), keep in zip(entries, kept, strict=True) if not keep),
    )


def summary(rows: Float64[np.ndarray, "names metrics"], *, compatibility: Compatibility | None = None) -> Row:
    """Return the mean over names, every name counting once.

    `compatibility="published"` leaves the first row out, which the published summary takes for a header. Raises
    ValueError where no row is left.
    """
    counted = rows[1:] if compatibility == "published" else rows
    if not len(counted):
        raise ValueError(f"a summary of {len(rows)} row(s) has no mean; give the rows of more clips")
    return counted.mean(axis=0)


def _within(values: Float64[np.ndarray, "entries metrics"]) -> Bool[np.ndarray, " entries"]:
    deviations = np.abs(values - values.mean(axis=0))
    return (deviations <= OUTLIER_DEVIATIONS * values.std(axis=0)).all(axis=1)
