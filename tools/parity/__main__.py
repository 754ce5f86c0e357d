"""`python -m tools.parity DIR`: every case of a folder of published numbers, one line each, and a summary."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from tools.parity.cases import Case, find_cases
from tools.parity.checks import Measurement, NotOffered
from tools.parity.runners import Runner, runner_for

PASSED, FAILED, UNSUPPORTED, NOT_OFFERED = "passed", "FAILED", "unsupported", "not offered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one case."""

    name: str
    status: str
    seconds: float
    worst: Measurement | None = None
    reason: str = ""


def judge(name: str, case: Case, runner: Runner | None) -> Verdict:
    """Run one case; whatever goes wrong inside is that case's failure, not the end of the run."""
    started = time.monotonic()

    def verdict(status: str, worst: Measurement | None = None, reason: str = "") -> Verdict:
        return Verdict(name=name, status=status, seconds=time.monotonic() - started, worst=worst, reason=reason)

    if runner is None:
        return verdict(UNSUPPORTED, reason=f"no runner for family {case.family!r}")
    try:
        checks = runner(case)
    except NotOffered as reason:
        return verdict(NOT_OFFERED, reason=str(reason))
    except Exception as error:  # noqa: BLE001  # reported as this case's failure
        return verdict(FAILED, reason=" ".join(f"{type(error).__name__}: {error}".split()))
    if not checks.measurements:
        return verdict(FAILED, reason="nothing was compared")
    return verdict(PASSED if checks.passed else FAILED, worst=checks.worst)


def verdicts(folder: Path, pattern: str) -> Iterator[Verdict]:
    """Judge the cases of a folder whose names contain `pattern`."""
    chosen = [case for case in find_cases(folder) if pattern in case.name]
    for case in tqdm(chosen, desc="cases", leave=False, disable=None):
        yield judge(case.name, case, runner_for(case))


def main() -> None:
    """Print a line per case and the summary; exit with 1 unless every case passed, 2 for a folder that is none."""
    parser = argparse.ArgumentParser(prog="python -m tools.parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder of cases, such as ../shared/golden/cases")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose names contain TEXT")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    counts: Counter[str] = Counter()
    print(f"{'case':<48} {'verdict':<12} {'error':>9} {'tolerance':>9} {'s':>6}  worst quantity, or reason")
    try:
        for verdict in verdicts(arguments.folder, arguments.only):
            counts[verdict.status] += 1
            print(line(verdict), flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    left_out = f", {counts[NOT_OFFERED]} not offered" if counts[NOT_OFFERED] else ""
    print(f"{counts[PASSED]} passed, {counts[FAILED]} failed, {counts[UNSUPPORTED]} unsupported{left_out}")
    raise SystemExit(1 if counts[FAILED] or counts[UNSUPPORTED] or not counts[PASSED] else 0)


def line(verdict: Verdict) -> str:
    """Format one verdict."""
    worst = verdict.worst
    numbers = f"{worst.error:9.1e} {worst.tolerance:9.1e}" if worst else f"{'-':>9} {'-':>9}"
    about = worst.name if worst else verdict.reason
    return f"{verdict.name:<48} {verdict.status:<12} {numbers} {verdict.seconds:6.1f}  {about}"


if __name__ == "__main__":
    main()
