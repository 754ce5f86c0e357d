"""What a folder of published numbers asks for: one job per case."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tools.parity.cases import Case, find_cases
from tools.parity.checks import Checks
from tools.parity.runners import MODEL_RUNNERS, load_runner, runner_of

MODELS_INDEX = "index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A case and what runs it."""

    name: str
    family: str
    """Of a model's case: its kind."""
    run: Callable[[], Checks] | None
    """None where no runner knows the family."""


def find_jobs(folder: Path) -> list[Job]:
    """List the cases of a folder in the format of shared/golden/cases, `cases/models`, or `manifests`.

    Raises ValueError where the folder is absent or holds none of these.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give one in the format of shared/golden/cases")
    if (folder / MODELS_INDEX).is_file():
        jobs = _models(folder, "")
    elif any(folder.glob("*.json.gz")):
        jobs = _manifests(folder)
    else:
        jobs = [
            Job(name=case.name, family=case.family, run=_run_of(runner_of(case.name), case))
            for case in find_cases(folder)
        ]
        if (folder / "models" / MODELS_INDEX).is_file():
            jobs += _models(folder / "models", "models/")
    if not jobs:
        raise ValueError(f"{folder}: holds no cases; give a folder in the format of shared/golden/cases")
    return jobs


def _models(folder: Path, prefix: str) -> list[Job]:
    from tools.parity.network_cases import find_model_cases

    return [
        Job(name=f"{prefix}{case.name}", family=case.kind, run=_run_of(MODEL_RUNNERS.get(case.kind), case))
        for case in find_model_cases(folder)
    ]


def _manifests(folder: Path) -> list[Job]:
    from tools.parity.manifests import find_manifests, run

    return [
        Job(
            name=f"manifests/{manifest.name}",
            family="manifest",
            run=partial(run, manifest) if manifest.overrides else None,
        )
        for manifest in find_manifests(folder)
    ]


def _run_of(place: str | None, case: Any) -> Callable[[], Checks] | None:
    return None if place is None else partial(_run_all, place, case)


def _run_all(place: str, case: Any) -> Checks:
    """Run a case; an array of its npz that nothing looked at is a failure."""
    checks = load_runner(place)(case)
    if isinstance(case, Case) and case.arrays.unread:
        checks.at_most(f"never compared: {', '.join(sorted(case.arrays.unread))}", math.inf, 0.0)
    return checks
