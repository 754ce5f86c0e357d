"""Requests to stop from outside: signals, and a file in the run folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType

from cami2v.training import environment

REQUEUE_EXIT_CODE = 85
"""Of a run that was asked to leave the machine, saved, and wants to be started again with resume=auto."""
INTERRUPT_EXIT_CODE = 130
"""Of a run that its user interrupted (Ctrl-C); it has saved as well."""
PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send ahead of the end: Slurm SIGTERM, or what --signal names."""


class StopRequest(IntEnum):
    """What a process was asked to do; over all processes the largest counts."""

    NONE = 0
    INTERRUPT = 1
    PREEMPT = 2

    @property
    def exit_code(self) -> int:
        """Exit code of a run that stopped for this reason."""
        return {"NONE": 0, "INTERRUPT": INTERRUPT_EXIT_CODE, "PREEMPT": REQUEUE_EXIT_CODE}[self.name]


class StopRequests:
    """Remember what this process was asked: SIGTERM, SIGUSR1 or the file mean preemption, SIGINT means the user.

    Handlers only set a flag, so a signal never interrupts the writing of a checkpoint, and a repeated one changes
    nothing; only a second SIGINT ends the process, at once.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        """Asks for preemption by being there. One process should look at it."""
        self._received = StopRequest.NONE

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals of this process, and handle them as before afterwards. Main thread only."""
        before = {number: signal.getsignal(number) for number in (*PREEMPTION_SIGNALS, signal.SIGINT)}
        for number in PREEMPTION_SIGNALS:
            signal.signal(number, self._preempt)
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def pending(self) -> StopRequest:
        """Return what this process has been asked so far."""
        asked = self.file is not None and self.file.exists()
        return StopRequest.PREEMPT if asked else self._received

    def _preempt(self, number: int, frame: FrameType | None) -> None:
        self._received = StopRequest.PREEMPT

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # The kernel's own action from now on: it works while Python waits for other processes, too.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._received = max(self._received, StopRequest.INTERRUPT)
        if environment.rank() == 0:
            # Not through sys.stderr: the interrupted code may be in the middle of writing there.
            os.write(2, b"interrupted: saving at the next step, then stopping; once more stops at once, unsaved\n")
