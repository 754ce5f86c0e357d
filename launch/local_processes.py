"""Several processes of one program on this machine: started, watched, signalled and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from cami2v.training.preemption import INTERRUPT_EXIT_CODE, PREEMPTION_SIGNALS, REQUEUE_EXIT_CODE

PARENT = "CAMI2V_PARENT"
"""Environment variable: the process number of the program that started this one."""
_FORWARDED = (*PREEMPTION_SIGNALS, signal.SIGINT)
_STOPPED = (REQUEUE_EXIT_CODE, INTERRUPT_EXIT_CODE)
_SECONDS_TO_FINISH = 60.0
"""After one process has stopped on request, the others may still close their files and connections."""
_SECONDS_TO_FAIL = 30.0
"""After one process has failed, the others wait for it in vain; but process 0 may be writing a checkpoint."""


class LocalProcesses:
    """Copies of `command` as ranks 0 to `count - 1`, as torchrun would start them, but for signals and exit codes.

    A signal goes to all of them, and the exit code of the first to fail comes back, so that a preempted job is told
    from a failed one. (torchrun ends its workers at a signal, and turns every exit code into 1.)
    """

    def __init__(self, command: Sequence[str], count: int) -> None:
        # The store lives here and its port is the kernel's choice: two jobs on one machine never meet.
        from torch.distributed import TCPStore

        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._forwarded: set[int] = set()
        shared = os.environ | {
            "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._store.port), "TORCHELASTIC_USE_AGENT_STORE": "True", PARENT: str(os.getpid()),
        }  # fmt: skip
        shared.setdefault("OMP_NUM_THREADS", "1")
        self._children: list[subprocess.Popen[bytes]] = []
        # From here on, so that a signal while they start neither ends this process alone nor is lost.
        self._before = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        try:
            for rank in range(count):
                self._start(command, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        except OSError:
            self._stop_forwarding()
            raise

    def wait(self) -> int:
        """Pass signals on until all processes have ended, and end them once one failed; return the exit code."""
        try:
            while (failed := self._first_failure()) is None and self._running():
                time.sleep(0.1)
            code = 0 if failed is None else self._children[failed].returncode
            stopped = self._stopped_as(code)
            self._end_others(_SECONDS_TO_FINISH if stopped in (0, *_STOPPED) else _SECONDS_TO_FAIL)
        finally:
            self._stop_forwarding()
        if stopped < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            print(
                f"error: process {failed} of {len(self._children)} was killed by {signal.Signals(-code).name}{hint}; "
                "the others were stopped. Start again with resume=auto to continue from the last checkpoint",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            return 1
        return stopped

    def _running(self) -> bool:
        return any(child.poll() is None for child in self._children)

    def _first_failure(self) -> int | None:
        failed = [rank for rank, child in enumerate(self._children) if child.poll() not in (None, 0)]
        # Found at the same time: one that was killed has made the others fail.
        return min(failed, key=lambda rank: (self._children[rank].returncode > 0, rank), default=None)

    def _stopped_as(self, code: int) -> int:
        """Take a process that a passed-on signal killed, too young to handle it, for one that stopped as asked."""
        if -code in self._forwarded:
            return INTERRUPT_EXIT_CODE if -code == signal.SIGINT else REQUEUE_EXIT_CODE
        return code

    def _end_others(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._running() and time.monotonic() < deadline:
            time.sleep(0.1)
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

    def _start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        # A process group of its own: Ctrl-C in a terminal reaches only this process, which passes it on once.
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)
        self._children.append(child)
        for number in self._forwarded:
            child.send_signal(number)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._forwarded.add(number)
        for child in self._children:
            if child.returncode is None:
                child.send_signal(number)

    def _stop_forwarding(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
