"""Work of a visitor that takes a while: it says how far it is, and stops when asked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cami2v.inference.progress import Progress, SamplingCancelledError

Result = TypeVar("Result")
Work = Callable[["Job"], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Generic[Result]):
    """The end of a job: what came of it, or what was wrong, or neither where it was stopped."""

    result: Result | None = None
    error: str | None = None


@dataclass(slots=True)
class Job:
    """One job; `stop` may be called from any thread, and before it began."""

    _stopped: threading.Event = field(default_factory=threading.Event)
    _told: queue.SimpleQueue[object] = field(default_factory=queue.SimpleQueue)
    open: bool = True
    """False once it has ended."""
    began: bool = False

    def stop(self) -> None:
        """Ask it to stop: it does after the denoising step that runs."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Tell whether it was asked to stop."""
        return self._stopped.is_set()

    def tell(self, progress: Progress | str) -> None:
        """Say how far it is."""
        self._told.put(progress)

    def follow(self, work: Work[Result]) -> Generator[Progress | str | Finished[Result], None, None]:
        """Do the work in another thread and yield what it tells, its end last.

        User errors (ValueError, no memory) become its end; others are bugs and are raised here. Who stops listening
        stops the job.
        """
        ends: list[BaseException | Finished[Result]] = []

        def run() -> None:
            try:
                ends.append(Finished(result=work(self)))
            except SamplingCancelledError:
                ends.append(Finished())
            except ValueError as error:
                ends.append(Finished(error=" ".join(str(error).split())))
            except (MemoryError, RuntimeError) as error:
                ends.append(Finished(error=_no_memory(error)) if _is_memory(error) else error)
            finally:
                self._told.put(None)

        self.began = True
        if self.stopped:
            self.open = False
            yield Finished()
            return
        thread = threading.Thread(target=run, name="cami2v-app-job", daemon=True)
        thread.start()
        try:
            while (told := self._newest()) is not None:
                yield told
        finally:
            self.stop()
            thread.join()
            self.open = False
        if not ends:
            raise RuntimeError("the job ended without a word; its traceback is above")
        (end,) = ends
        if isinstance(end, BaseException):
            raise end
        yield end

    def _newest(self) -> Progress | str | None:
        """Wait for word; of several the last one counts, for a page may be slower than the steps. None: the end."""
        told = self._told.get()
        while told is not None and not self._told.empty():
            told = self._told.get()
        assert told is None or isinstance(told, (Progress, str))
        return told


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _no_memory(error: BaseException) -> str:
    reason = str(error).strip().split("\n", 1)[0]
    return f"not enough memory ({reason:.160}); choose fewer frames or a smaller model"
