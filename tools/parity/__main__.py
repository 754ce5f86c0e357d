"""Compare this library with published numbers: every case of DIR, one line each, and a summary.

DIR is a folder in the format of ../shared/golden/cases (its subfolder models included), such a models folder itself, or
a folder of manifests. Exit code: 0 when every case passed or is not offered, 1 when one failed or is unsupported, 2
when DIR is no such folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

import torch

from tools.parity.jobs import Job, find_jobs
from tools.parity.verdicts import Status, Verdict, judge


def main(arguments: list[str] | None = None) -> int:
    """Print a line per case and the summary; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of cases, such as ../shared/golden/cases")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose names contain TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the verdicts to FILE")
    options = parser.parse_args(arguments)
    try:
        jobs = _chosen(options.folder, options.only)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # One thread: sums in one order, the same digits on every machine with the same libraries.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    verdicts = []
    print(HEADER)
    for job in jobs:
        verdicts.append(judge(job))
        print(line(verdicts[-1]), flush=True)
    counts = Counter(verdict.status for verdict in verdicts)
    print(summary(counts))
    if options.json is not None:
        rows = [dataclasses.asdict(verdict) for verdict in verdicts]
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if counts[Status.FAILED] or counts[Status.UNSUPPORTED] else 0


def _chosen(folder: Path, text: str) -> list[Job]:
    jobs = find_jobs(folder)
    chosen = [job for job in jobs if text in job.name]
    if not chosen:
        raise ValueError(f"{folder}: none of its {len(jobs)} cases has {text!r} in its name")
    return chosen


HEADER = f"{'case':<50} {'verdict':<11} {'error':>8} {'allowed':>8} {'seconds':>7}  worst quantity, or reason"


def line(verdict: Verdict) -> str:
    """Format one verdict."""
    worst = verdict.worst
    numbers = f"{worst.error:8.1e} {worst.tolerance:8.1e}" if worst else f"{'-':>8} {'-':>8}"
    about = worst.name if worst else verdict.reason
    return f"{verdict.name:<50} {verdict.status:<11} {numbers} {verdict.seconds:7.1f}  {about}"


def summary(counts: Counter[Status]) -> str:
    """Format the last line."""
    left_out = f", {counts[Status.NOT_OFFERED]} not offered" if counts[Status.NOT_OFFERED] else ""
    passed, failed, unsupported = (counts[each] for each in (Status.PASSED, Status.FAILED, Status.UNSUPPORTED))
    return f"{passed} passed, {failed} failed, {unsupported} unsupported{left_out}"


if __name__ == "__main__":
    raise SystemExit(main())
