"""Run a job and say what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from tools.parity.checks import Checks, Measurement, NotOffered
from tools.parity.jobs import Job

CASE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a case may die of without ending the run: a malformed case, or a library that refuses or breaks."""


class Status(StrEnum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "FAILED"
    UNSUPPORTED = "unsupported"
    """No runner knows its family."""
    NOT_OFFERED = "not offered"
    """It exercises an optional feature this house leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one case."""

    name: str
    family: str
    status: Status
    seconds: float
    compared: int = 0
    worst: Measurement | None = None
    reason: str = ""


def judge(job: Job) -> Verdict:
    """Run one case; whatever goes wrong inside is that case's failure, not the end of the run."""
    started = time.monotonic()
    checks = Checks()
    if job.run is None:
        status, reason = Status.UNSUPPORTED, f"no runner for family {job.family!r}"
    else:
        try:
            checks = job.run()
            status = Status.PASSED if checks.passed else Status.FAILED
            reason = "" if checks.measurements else "nothing was compared"
        except NotOffered as why:
            status, reason = Status.NOT_OFFERED, str(why)
        except CASE_ERRORS as error:
            status, reason = Status.FAILED, " ".join(f"{type(error).__name__}: {error}".split())
    return Verdict(
        name=job.name,
        family=job.family,
        status=status,
        seconds=time.monotonic() - started,
        compared=len(checks.measurements),
        worst=checks.worst if checks.measurements else None,
        reason=reason,
    )
