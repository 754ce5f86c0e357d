"""Pooling of trials: nothing disappears by default."""

from __future__ import annotations

import numpy as np
import pytest

from cami2v.evaluation.trials import merge_trials, summary


def trial(**rows: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(row, dtype=np.float64) for name, row in rows.items()}


def test_trials_are_pooled_by_name():
    merged = merge_trials([trial(b=[1, 10], a=[3, 30]), trial(a=[5, 50], c=[7, 70]), trial(a=[13, 40])])
    assert merged.names == ("b", "a", "c")
    assert merged.trials == (1, 3, 1)
    np.testing.assert_allclose(merged.mean, [[1, 10], [7, 40], [7, 70]])
    np.testing.assert_allclose(merged.median, [[1, 10], [5, 40], [7, 70]])
    assert merged.dropped == ()
    np.testing.assert_allclose(summary(merged.mean), [5, 40])


def outlier_among(entries: int) -> list[dict[str, np.ndarray]]:
    calm = {f"clip{index}": np.array([1.0 + index % 2]) for index in range(entries - 1)}
    return [calm, {"gross": np.array([1e6])}]


def test_an_outlier_stays_unless_the_published_rule_is_asked_for():
    ours = merge_trials(outlier_among(150))
    assert "gross" in ours.names
    assert ours.dropped == ()
    published = merge_trials(outlier_among(150), compatibility="published")
    assert "gross" not in published.names
    assert published.dropped == (("gross", 1),)


@pytest.mark.parametrize(("entries", "dropped"), [(101, 0), (103, 1)])
def test_the_published_rule_cannot_see_outliers_among_few_entries(entries, dropped):
    assert len(merge_trials(outlier_among(entries), compatibility="published").dropped) == dropped


def test_equal_entries_are_no_outliers():
    rows = {f"clip{index}": np.array([0.1]) for index in range(7)}
    assert merge_trials([rows], compatibility="published").dropped == ()


def test_the_published_summary_loses_its_first_row():
    rows = np.array([[9.0], [1.0], [2.0]])
    assert summary(rows) == 4
    assert summary(rows, compatibility="published") == 1.5
    with pytest.raises(ValueError, match="summary of 1 row"):
        summary(rows[:1], compatibility="published")


def test_nothing_and_infinities_are_refused():
    with pytest.raises(ValueError, match="2 trial.s. without a single entry"):
        merge_trials([{}, {}])
    with pytest.raises(ValueError, match=r"b, trial 1: metrics \[1.0, nan\] are not all finite"):
        merge_trials([trial(a=[1, 2]), trial(b=[1, np.nan])])
