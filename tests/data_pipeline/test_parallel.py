"""Jobs in several processes: in order, few at a time, and what happens where a process is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from data_pipeline.parallel import workers


def _job(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_results_come_in_order_and_a_killed_process_is_one_line() -> None:
    begun = []

    def items(count: int) -> Iterator[int]:
        for number in range(count):
            begun.append(number)
            yield number

    def run_all() -> None:
        with workers(2) as run:
            results = run(_job, items(5), ahead=2)
            assert [next(results), begun] == [0, [0, 1]]
            assert [*results] == [1, 4, 9, 16]
            list(run(_job, items(20)))

    with pytest.raises(ValueError, match=r"one of 2 worker processes died: killed, or out of memory\?") as caught:
        run_all()
    assert "\n" not in str(caught.value)
