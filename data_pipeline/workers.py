"""Which worker process reads which clip, so that one that dies is not just a process number."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A clip in work."""

    worker: int
    number: int
    """Global sample number."""
    shard: int
    position: int


class ReadingTable:
    """What every worker is reading, in memory that its processes share."""

    def __init__(self, workers: int) -> None:
        self._rows = torch.full((workers, 4), -1, dtype=torch.int64).share_memory_()

    def start(self, number: int, shard: int, position: int) -> None:
        """Note what this worker reads from now on; nothing in the main process."""
        worker = get_worker_info()
        if worker is not None:
            self._rows[worker.id] = torch.tensor([os.getpid(), number, shard, position])

    def done(self) -> None:
        """Note that this worker has finished its clip."""
        worker = get_worker_info()
        if worker is not None:
            self._rows[worker.id, 1] = -1

    def of(self, pid: int | None) -> Reading | None:
        """Return what a worker was reading last, or None where it was between clips."""
        for worker, (owner, number, shard, position) in enumerate(self._rows.tolist()):
            if owner == pid and number >= 0:
                return Reading(worker=worker, number=number, shard=shard, position=position)
        return None


def watched(loader: DataLoader[Any], describe: Callable[[BaseProcess], str], remedy: str = "") -> Iterator[Any]:
    """Yield a loader's batches.

    Raises ValueError, in one line, where one of its workers died; `describe` says on what, `remedy` what to do.
    """
    others = set(active_children())
    with _sigterm_blocked() if loader.worker_init_fn is outlive_signals else nullcontext():
        batches = iter(loader)
    workers = [child for child in active_children() if child not in others]
    report_deaths_at_the_next_batch()
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            # Killed while it hands a tensor over, a process is missed by its socket first.
            for worker in workers:
                worker.join(timeout=0.2)
            dead = [worker for worker in workers if not worker.is_alive()]
            if not dead:
                raise
            raise ValueError(obituary(dead, describe) + remedy) from error
        yield batch


def obituary(dead: Sequence[BaseProcess], describe: Callable[[BaseProcess], str]) -> str:
    """Say in one line which workers died, of what, and on which clips."""
    return "; ".join(f"a loader worker died ({_cause(each)}) {describe(each)}" for each in dead)


def report_deaths_at_the_next_batch() -> None:
    """Keep torch from raising a worker's death wherever the main thread happens to be, which may be a backward pass.

    Asked for its next batch, DataLoader notices by itself within five seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    inner = signal.getsignal(signal.SIGCHLD)
    if callable(inner) and not isinstance(inner, _Quiet):
        signal.signal(signal.SIGCHLD, _Quiet(inner))


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Block SIGTERM in this thread, for processes forked meanwhile to inherit: libraries may start threads in them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_signals(worker: int) -> None:
    """Let a worker go on at a signal that its whole job got: its main process still needs batches until it has saved.

    Schedulers and terminals signal every process of a job. Only a SIGTERM from the main process itself ends a worker.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # Blocked in all threads, and read by one: only so is the sender known.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        continue
    os._exit(0)


class _Quiet:
    def __init__(self, inner: Callable[[int, FrameType | None], object]) -> None:
        self.inner = inner

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):
            self.inner(signum, frame)


def _cause(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        hint = ", out of memory?" if -code == signal.SIGKILL else ""
        return f"pid {process.pid}, signal {signal.Signals(-code).name}{hint}"
    return f"pid {process.pid}, exit code {code}"
