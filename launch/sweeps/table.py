"""Every trial as a row: printed, and as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from optuna.trial import TrialState

from cami2v.training.run_folder import replace_text
from launch.sweeps.space import Parameters, text
from launch.sweeps.study import SweepStudy

_STATES = {TrialState.COMPLETE: "finished", TrialState.FAIL: "failed", TrialState.PRUNED: "pruned"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trial."""

    trial: int
    state: str
    """finished | pruned | failed | running | interrupted"""
    value: float | None
    """Of a pruned trial, the last one it was compared by."""
    parameters: Parameters
    starts: int
    seconds: float
    folder: str
    reason: str | None


def rows(study: SweepStudy, run: Callable[[int], Path], *, busy: bool, running: Collection[int] = ()) -> list[Row]:
    """Return the trials by number; `busy`: a process works on those that have no result, `running` do without one."""

    def unfinished(number: int) -> str:
        return "running" if busy or number in running else "interrupted"

    return [
        Row(
            trial=trial.number, state=_STATES.get(trial.state, unfinished(trial.number)), value=trial.value,
            parameters=dict(trial.params), starts=trial.user_attrs.get("starts", 0),
            seconds=trial.user_attrs.get("seconds", 0.0), folder=str(run(trial.number)),
            reason=trial.user_attrs.get("reason"),
        )
        for trial in study.trials()
    ]  # fmt: skip


def cells(table: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells as text."""
    keys = list(dict.fromkeys(key for row in table for key in row.parameters))
    header = ["trial", "state", "value", *keys, "starts", "seconds", "folder", "reason"]
    body = [
        [
            str(row.trial), row.state, "" if row.value is None else repr(row.value),
            *(text(row.parameters[key]) if key in row.parameters else "" for key in keys),
            str(row.starts), f"{row.seconds:.1f}", row.folder, row.reason or "",
        ]
        for row in table
    ]  # fmt: skip
    return header, body


def markdown(table: Sequence[Row]) -> str:
    """Return the table as Markdown, aligned for a terminal as well."""
    header, body = cells(table)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])) + "\n"


def summary(table: Sequence[Row]) -> str:
    """Count the states."""
    counts = {state: sum(row.state == state for row in table) for state in dict.fromkeys(row.state for row in table)}
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "no trials"


def write_markdown(path: Path, table: Sequence[Row]) -> None:
    """Write the table as Markdown."""
    replace_text(path, markdown(table))


def write_csv(path: Path, table: Sequence[Row]) -> None:
    """Write the table as CSV."""
    header, body = cells(table)
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([header, *body])
    replace_text(path, buffer.getvalue())


def write_json(path: Path, table: Sequence[Row]) -> None:
    """Write the rows with typed values."""
    replace_text(path, json.dumps([asdict(row) for row in table], indent=2) + "\n")
