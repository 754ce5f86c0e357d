"""compatibility=cami2v: every defect of the published procedure, one after the other, with what it changes."""

from __future__ import annotations

import numpy as np
import pytest

from cami2v.evaluation.measures.base import Attempt, Figure
from cami2v.evaluation.published import COLUMNS, published_procedure
from cami2v.evaluation.summary import SetSummary, summarise_figure

PENALTY = dict.fromkeys(COLUMNS, 9.0)


def attempt(number: int, value: float | None) -> Attempt:
    values = {} if value is None else {name: value * (column + 1) for column, name in enumerate(COLUMNS)}
    return Attempt(trial=str(number), failure=None if values else "no model", detail="", values=values)


def procedure(clips: list[list[float | None]]) -> list[dict[str, object]]:
    """Rows of RotErr per clip and trial; None is a failed trial."""
    medians = [[value for value in own if value is not None] for own in clips]
    figures = {}
    for column, name in enumerate(COLUMNS):
        figure = Figure(name=name, label=name, unit="", better="lower", meaning="")
        values = [float(np.median(own)) * (column + 1) if own else None for own in medians]
        figures[name] = summarise_figure(figure, values, [PENALTY] * len(clips))
    ours = SetSummary(clips=len(clips), figures=figures, facts={}, distances={})
    attempts = [[attempt(number, value) for number, value in enumerate(own)] for own in clips]
    return published_procedure([f"clip-{number}" for number in range(len(clips))], attempts, ours)


def rotations(steps: list[dict[str, object]]) -> list[float]:
    return [step["figures"]["RotErr_sum_rad"] for step in steps]  # type: ignore[index]  # as JSON


def test_each_defect_changes_what_it_changes() -> None:
    steps = procedure([[4.0, 4.0, 4.0], [1.0, 1.0, 7.0], [2.0, None, 2.0], [None, None, None]])
    # ours: (4 + 1 + 2 + 9) / 4; failures dropped: 7/3; means of trials: (4 + 3 + 2) / 3; first row lost: 2.5.
    assert rotations(steps) == pytest.approx([4.0, 7 / 3, 3.0, 3.0, 2.5])
    assert [step["clips"] for step in steps] == [4, 3, 3, 3, 2]
    assert [step["entries"] for step in steps] == [12, 8, 8, 8, 5]
    assert steps[1]["effect"] == "1 of 4 clips and 4 of 12 trials vanish without a trace"
    assert "among 8 entries none can be further than 2.6 deviations off" in str(steps[3]["effect"])
    assert steps[4]["effect"] == "clip clip-0 does not count"


def test_gross_errors_are_dropped_only_among_many() -> None:
    few: list[list[float | None]] = [[1.0] for _ in range(100)]
    few.append([1e6])
    assert rotations(procedure(few))[2] == rotations(procedure(few))[3]
    few.append([1.0])
    steps = procedure(few)
    assert rotations(steps)[3] == pytest.approx(1.0)
    assert steps[3]["effect"] == "1 of 102 trials dropped (of clip-100)"
    assert rotations(steps)[2] > 9000


def test_nothing_left_is_no_number() -> None:
    assert rotations(procedure([[None, None]])) == [9.0, None]
    assert rotations(procedure([[3.0]])) == [3.0, 3.0, 3.0, 3.0, None]
