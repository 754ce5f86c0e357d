"""Run a job over many items in several processes, in order, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_processes() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0))


def progress_bar(results: Iterable[Item] | None, *, what: str, unit: str, total: int, show: bool) -> tqdm[Item]:
    """Make a progress bar; in a log file it writes a line every ten seconds instead of ten a second."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(results, desc=what, total=total, unit=unit, mininterval=interval, disable=not show)


class Runner:
    """Runs a job over items in order, in this process or in several."""

    def __init__(self, pool: ProcessPoolExecutor | None, processes: int) -> None:
        self._pool = pool
        self._window = 4 * processes

    def __call__(
        self, job: Callable[[Item], Result], items: Iterable[Item], *, ahead: int | None = None
    ) -> Iterator[Result]:
        """Yield the results in the order of the items; few are in flight, so that results do not pile up.

        `ahead` says how many items at most are begun before their results are asked for (1: each when it is).
        """
        if self._pool is None:
            yield from map(job, items)
            return
        waiting = []
        for item in items:
            waiting.append(self._pool.submit(job, item))
            if len(waiting) >= (ahead or self._window):
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


@contextmanager
def workers(processes: int) -> Iterator[Runner]:
    """Give a runner over this many processes; 1 stays in this process. Raises ValueError where one of them dies."""
    if processes == 1:
        yield Runner(None, 1)
        return
    # Spawned, not forked: the caller may hold threads and locks of torch or FFmpeg.
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        yield Runner(pool, processes)
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {processes} worker processes died: killed, or out of memory? Give the command fewer processes, or "
            "more memory; what it finished is kept where its page says so"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a pool's worker has a parent"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
