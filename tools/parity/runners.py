"""Which function runs a case, by its family."""

from __future__ import annotations

from collections.abc import Callable

from tools.parity.cases import Case
from tools.parity.checks import Checks

Runner = Callable[[Case], Checks]

RUNNERS: dict[str, Runner] = {}
"""Cases of a folder itself, by the part of the name before the first double underscore, or by a longer prefix."""


def runner_for(case: Case) -> Runner | None:
    """Return the runner with the longest matching name; None where the case is of an unknown family."""
    matches = [name for name in RUNNERS if case.name == name or case.name.startswith(f"{name}__")]
    return RUNNERS[max(matches, key=len)] if matches else None
