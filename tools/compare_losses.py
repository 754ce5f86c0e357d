"""Put the losses of runs side by side: equal within noise, or bit for bit with their weights.

`python -m tools.compare_losses runs/ddp runs/zero2` prints one line a step and the largest relative difference to the
first run; `--exact` demands equal losses and equal trained weights to the last bit. Exit code 1 where the runs differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from cami2v.checkpoints.load import find_weights, read_weights
from cami2v.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs, step by step."""

    steps: list[int]
    """In both runs."""
    largest_relative_difference: float
    different_weights: list[str]
    """Names whose bits differ, or that only one run has."""


def main() -> None:
    """Compare every run with the first."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_losses", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; the first is the reference")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="allowed relative difference (default 1e-5)")
    parser.add_argument("--exact", action="store_true", help="demand equal losses and weights, bit for bit")
    arguments = parser.parse_args()
    if len(arguments.runs) < 2:
        parser.error("give at least two run folders")
    try:
        losses = {run: read_losses(run) for run in arguments.runs}
        comparisons = {run: compare(arguments.runs[0], run) for run in arguments.runs[1:]}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print_table(losses)
    tolerance = 0.0 if arguments.exact else arguments.tolerance
    differ = False
    for run, comparison in comparisons.items():
        weights = f"{len(comparison.different_weights)} weights differ"
        print(
            f"{run}: {len(comparison.steps)} common steps, largest relative difference "
            f"{comparison.largest_relative_difference:.3g} (allowed {tolerance:g}); {weights}"
        )
        differ |= comparison.largest_relative_difference > tolerance
        differ |= arguments.exact and bool(comparison.different_weights)
    raise SystemExit(int(differ))


def read_losses(run: Path) -> dict[int, float]:
    """Read the training loss of every logged step. Raises ValueError where the run has none."""
    path = RunFolder(run).metrics
    if not path.is_file():
        raise ValueError(f"{run}: no {path.name}; give run folders of cami2v train")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def compare(reference: Path, run: Path) -> Comparison:
    """Compare losses of the steps both runs logged, and the weights of their latest checkpoints.

    Raises ValueError where the runs have no step in common.
    """
    expected, found = read_losses(reference), read_losses(run)
    steps = sorted(expected.keys() & found.keys())
    if not steps:
        raise ValueError(f"{reference} and {run} have no step in common")
    first, second = (read_weights(find_weights(folder)) for folder in (reference, run))
    different = [
        name
        for name in sorted(first.keys() | second.keys())
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    ]
    return Comparison(
        steps=steps,
        largest_relative_difference=max(abs(found[step] - expected[step]) / abs(expected[step]) for step in steps),
        different_weights=different,
    )


def print_table(losses: dict[Path, dict[int, float]]) -> None:
    """Print one column a run, with all digits a float32 has."""
    print("step  " + "  ".join(f"{run.name:>14}" for run in losses))
    for step in sorted(set().union(*losses.values())):
        cells = (f"{rows[step]:>14.9f}" if step in rows else " " * 14 for rows in losses.values())
        print(f"{step:>4}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
