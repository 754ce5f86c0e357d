"""Say what the measurements of an evaluation cost: clips per minute and core, and the share of every stage."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cami2v.evaluation.folder import EvaluationFolder, read_json
from cami2v.evaluation.stopwatch import SECONDS, TOTAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 2 for a folder without measurements."""
    parser = argparse.ArgumentParser(prog="python -m tools.evaluation_cost", description=__doc__)
    parser.add_argument("folder", type=Path, help="of an evaluation")
    options = parser.parse_args(arguments)
    rows = list(cost_rows(EvaluationFolder(options.folder)))
    if not rows:
        print(f"error: {options.folder}: no measurements that say what they cost", file=sys.stderr)
        return 2
    print("Processor seconds of one thread, median over videos; without the time in which other programs ran.\n")
    for row in [["measure", "videos", "videos/min/core", "seconds", "stages"], ["---"] * 5, *rows]:
        print(f"| {' | '.join(row)} |")
    return 0


def cost_rows(folder: EvaluationFolder) -> Iterator[list[str]]:
    """Yield a row per measure."""
    for measure in sorted(path for path in (folder.root / "measurements").glob("*") if path.is_dir()):
        spent = [read_json(path).get(SECONDS, {}) for path in sorted(measure.glob("*/*.json"))]
        judged = [seconds for seconds in spent if seconds.get(TOTAL, 0) > 0]
        if judged:
            total = statistics.median(seconds[TOTAL] for seconds in judged)
            mean = statistics.fmean(seconds[TOTAL] for seconds in judged)
            yield [measure.name, str(len(judged)), f"{60 / mean:.2f}", f"{total:.2f}", _stages(judged)]


def _stages(judged: Sequence[Mapping[str, float]]) -> str:
    names = sorted({name for seconds in judged for name in seconds} - {TOTAL})
    shares = [(name, statistics.median(seconds.get(name, 0.0) for seconds in judged)) for name in names]
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in shares) or "-"


if __name__ == "__main__":
    raise SystemExit(main())
