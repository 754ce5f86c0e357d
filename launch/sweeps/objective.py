"""What a trial is judged by: rows of its metrics.jsonl, or a number of its evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cami2v.signature import suggestion
from cami2v.training.run_folder import RunFolder
from launch.sweeps.settings import ObjectiveSettings

EVALUATION = "evaluation/sweep"
"""Where a trial's evaluation lies in its run folder."""


def series(run: Path, key: str) -> list[tuple[int, float]]:
    """Return (step, value) of every row that has the key, as far as the run has come; an unfinished line waits."""
    return [(int(row["step"]), float(row[key])) for row in _rows(run) if isinstance(row.get(key), int | float)]


def reduce(values: list[float], how: str) -> float:
    """Make one number of a series."""
    if how == "last":
        return values[-1]
    return min(values) if how == "minimum" else max(values)


def final_value(run: Path, objective: ObjectiveSettings) -> float:
    """Return the value of a finished trial. Raises ValueError where it left none, saying what it did leave."""
    if objective.source == "evaluation":
        return _evaluated(run / EVALUATION / "results.json", objective.key)
    values = [value for _, value in series(run, objective.key)]
    if values:
        return reduce(values, objective.reduce)
    keys = sorted({key for row in _rows(run) for key in row})
    if objective.key in keys:
        raise ValueError(f"{objective.key} was never a finite number")
    known = f"; it has {', '.join(keys)}" if keys else ""
    raise ValueError(f"metrics.jsonl has no {objective.key}{suggestion(objective.key, keys)}{known}")


def _rows(run: Path) -> list[dict[str, Any]]:
    path = RunFolder(run).metrics
    if not path.is_file():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    rows = []
    for line in whole:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # cut off when the run was killed
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def _evaluated(path: Path, key: str) -> float:
    if not path.is_file():
        raise ValueError(f"{path}: the evaluation left no results")
    node: Any = json.loads(path.read_text())
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            keys = list(node) if isinstance(node, dict) else []
            raise ValueError(f"{path}: has no {key}; at {name!r} there is {', '.join(keys) or node}")
        node = node[name]
    if not isinstance(node, int | float) or not math.isfinite(node):
        raise ValueError(f"{path}: {key} is {node!r}, not a number")
    return float(node)
