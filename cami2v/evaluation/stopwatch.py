"""What a measurement costs, by stage: processor seconds of this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = "seconds"
"""Key of a stored row."""
TOTAL = "total"
_spent: dict[str, float] | None = None


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Collect the processor seconds of every `timed` stage inside, and of all of it as `total`."""
    global _spent
    outer, _spent = _spent, {}
    spent, start = _spent, time.process_time()
    try:
        yield spent
    finally:
        spent[TOTAL] = time.process_time() - start
        _spent = outer


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Count what happens inside as a stage; nothing where nobody measures."""
    start = time.process_time()
    try:
        yield
    finally:
        if _spent is not None:
            _spent[stage] = _spent.get(stage, 0.0) + time.process_time() - start
