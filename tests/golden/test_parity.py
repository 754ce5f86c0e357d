"""Every published number we have, one test per case: what `python -m tools.parity` runs, as regression tests.

The folder is `$CAMI2V_GOLDEN`, by default ../shared/golden next to the repository: `cases` in it, and `manifests` where
there are any. Another folder of the same format works: CAMI2V_GOLDEN=/elsewhere pytest tests/golden
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.parity.checks import NotOffered
from tools.parity.jobs import Job, find_jobs

GOLDEN = Path(os.environ.get("CAMI2V_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))

SLOW = {"epimask", "end_to_end", "fvd", "manifest"}
"""Families with a case of more than about five seconds."""


def collected() -> list[object]:
    """List the folder's cases as test parameters; a single skipped one where there is no such folder."""
    folders = [GOLDEN / name for name in ("cases", "manifests") if (GOLDEN / name).is_dir()]
    if not folders:
        reason = f"no published numbers at {GOLDEN} (set CAMI2V_GOLDEN)"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    jobs = [job for folder in folders for job in find_jobs(folder)]
    return [pytest.param(job, id=job.name, marks=[pytest.mark.slow] if job.family in SLOW else []) for job in jobs]


@pytest.mark.parametrize("job", collected())
def test_equals_the_published_numbers(job: Job) -> None:
    assert job.run is not None, f"no runner for family {job.family!r}"
    try:
        checks = job.run()
    except NotOffered as reason:
        pytest.skip(f"not offered: {reason}")
    assert checks.measurements, "nothing was compared"
    assert checks.passed, f"{checks.worst.name}: error {checks.worst.error:.2e}, allowed {checks.worst.tolerance:.2e}"
