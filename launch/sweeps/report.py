"""A sweep on one page: table, history, and the value over each parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cami2v.html_report import HtmlReport
from launch.sweeps.settings import ObjectiveSettings
from launch.sweeps.space import Space, describe, text
from launch.sweeps.table import Row, cells, summary

MAX_SLICES = 24


def write_report(
    path: Path,
    name: str,
    objective: ObjectiveSettings,
    space: Space,
    table: Sequence[Row],
    importance: Mapping[str, float] | None,
) -> None:
    """Write the page; it needs no other file."""
    page = HtmlReport(f"Sweep {name}")
    page.paragraph(f"{summary(table)}. {objective.direction} {_label(objective)}.")
    finished = [row for row in table if row.state == "finished"]
    if finished:
        best = (min if objective.direction == "minimize" else max)(finished, key=_value)
        settings = " ".join(f"{key}={text(value)}" for key, value in best.parameters.items())
        page.paragraph(f"Best: trial {best.trial}, {_value(best):.6g}, {settings}")
        page.heading("History")
        page.figure(_history(finished, objective))
        if importance is not None:
            page.heading("Importance")
            page.figure(_bars(importance))
        page.heading("Value over each parameter")
        for figure in _slices(finished, space, objective):
            page.figure(figure)
    page.heading("Trials")
    page.table(*cells(table))
    page.heading("Space")
    page.table(["key", "values"], [[key, describe(distribution)] for key, distribution in space.items()])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial)
    partial.replace(path)


def _value(row: Row) -> float:
    assert row.value is not None
    return row.value


def _label(objective: ObjectiveSettings) -> str:
    return objective.key if objective.source == "evaluation" else f"{objective.key} ({objective.reduce})"


def _history(finished: Sequence[Row], objective: ObjectiveSettings) -> Figure:
    better = min if objective.direction == "minimize" else max
    values = [_value(row) for row in finished]
    best = [better(values[: index + 1]) for index in range(len(values))]
    numbers = [row.trial for row in finished]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(numbers, values, "o", label="trial")
    axes.step(numbers, best, where="post", label="best so far")
    axes.set(xlabel="trial", ylabel=_label(objective))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def _bars(importance: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(importance)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(importance), list(importance.values()))
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="share in what makes a trial one of the good ones (PED-ANOVA)", xlim=(0, 1.1))
    return figure


def _slices(finished: Sequence[Row], space: Space, objective: ObjectiveSettings) -> Iterator[Figure]:
    """Draw values over one parameter each, in the order of the space."""
    for key, distribution in list(space.items())[:MAX_SLICES]:
        figure = Figure(figsize=(3.6, 2.8), layout="constrained")
        axes = figure.subplots()
        values = [_value(row) for row in finished]
        if isinstance(distribution, CategoricalDistribution):
            names = [text(choice) for choice in distribution.choices]
            axes.plot([names.index(text(row.parameters[key])) for row in finished], values, "o")
            axes.set_xticks(range(len(names)), names, rotation=45 if sum(map(len, names)) > 24 else 0)
        else:
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            axes.plot([row.parameters[key] for row in finished], values, "o")
            if distribution.log:
                axes.set_xscale("log")
        axes.set(xlabel=key, ylabel=_label(objective))
        yield figure
