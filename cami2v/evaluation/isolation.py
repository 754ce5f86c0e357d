"""Work in processes of its own: native code that aborts costs one result, not the run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_isolated(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, processes: int
) -> Iterator[tuple[Job, Result | None]]:
    """Yield every job with its result, in order of completion; None for a job whose process died.

    `function` and jobs are pickled. Exceptions of `function` are raised.
    """
    unfinished = dict(enumerate(jobs))
    if not unfinished:
        return
    try:
        with _pool(min(processes, len(jobs))) as pool:
            futures = {pool.submit(function, job): number for number, job in unfinished.items()}
            for future in as_completed(futures):
                result = future.result()
                yield unfinished.pop(futures[future]), result
    except BrokenProcessPool:
        # A dead worker takes the whole pool with it: one process per job tells which job it was.
        for job in list(unfinished.values()):
            yield job, _run_alone(function, job)


def _run_alone(function: Callable[[Job], Result], job: Job) -> Result | None:
    with _pool(1) as pool:
        try:
            return pool.submit(function, job).result()
        except BrokenProcessPool:
            return None


def _pool(processes: int) -> ProcessPoolExecutor:
    # Not forked: the parent holds CUDA contexts and threads that a fork would copy in an undefined state.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
