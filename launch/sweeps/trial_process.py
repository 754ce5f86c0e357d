"""One trial as processes of its own: whatever happens to them does not happen to the sweep."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cami2v.training.preemption import REQUEUE_EXIT_CODE, StopRequest
from data_pipeline.file_locks import try_lock
from launch.local_processes import PARENT
from launch.sweeps.trial import HEAD, last_error


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """What a trial runs, one command after the other."""

    commands: Sequence[Sequence[str]]
    log: Path
    lock: Path
    """Held by the processes of the trial, so that nobody starts it twice while they live."""
    device: str | None
    """CUDA_VISIBLE_DEVICES of the trial; None leaves it as it is."""


class TrialProcess:
    """A trial on this machine; ends with its parent, gently."""

    adopted = False
    obstacle = "its processes of the last sweep still save, waiting"

    def __init__(self, job: TrialJob) -> None:
        self.job = job
        self.started = time.monotonic()
        self._waiting = list(job.commands)
        self._stopped = False
        self._log_start = job.log.stat().st_size if job.log.is_file() else 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start the next command; false where processes of an earlier start still live."""
        lock = try_lock(self.job.lock)
        if lock is None:
            return False
        command = self._waiting.pop(0)
        environment = {name: value for name, value in os.environ.items() if name != PARENT}
        if self.job.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.job.device
        # The child holds the lock from here on: it is the system that gives it back.
        with lock, self.job.log.open("ab") as log:
            log.write(f"{HEAD}{time.strftime('%FT%T')} {shlex.join(command)}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
                # Ctrl-C in a terminal reaches only the sweep, which passes it on.
                process_group=0, pass_fds=(lock.descriptor,), preexec_fn=_follow_parent(),
            )  # fmt: skip
        return True

    def poll(self) -> int | None:
        """Return the exit code once the trial has ended, starting its next command where one has gone well."""
        assert self._process is not None
        code = self._process.poll()
        if code == 0 and self._waiting:
            if self._stopped:
                return REQUEUE_EXIT_CODE
            self.start()  # if a process of the last command still holds the lock, the next look tries again
            return None
        return code

    def end(self) -> None:
        """Ask it to save and end; of an earlier sweep nothing runs on, its processes ended with it."""
        self._signal(signal.SIGTERM)

    def leave(self, asked: StopRequest) -> bool:
        """Pass the sweep's own end on."""
        self._signal(signal.SIGINT if asked == StopRequest.INTERRUPT else signal.SIGTERM)
        return True

    @property
    def place(self) -> str:
        """Name the process."""
        return "not started" if self._process is None else f"process {self._process.pid}"

    @property
    def log(self) -> str:
        """Path of the trial's log."""
        return str(self.job.log)

    def last_words(self) -> str:
        """Return the signal that killed it, or the line of the log that says best why it ended."""
        code = self.poll()
        if code is not None and code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"killed by {signal.Signals(-code).name}{hint}"
        with self.job.log.open("rb") as file:
            file.seek(self._log_start)
            return f"exit code {code}: {last_error(file.read().decode(errors='replace'))}"

    def _signal(self, number: int) -> None:
        """Send a signal to the process that runs, and begin no further one."""
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    @property
    def seconds(self) -> float:
        """Time since this start."""
        return time.monotonic() - self.started


def _follow_parent() -> Callable[[], None] | None:
    """Return what makes a child be asked to end when this process dies, as Linux can."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>

    def follow() -> None:
        prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)  # it died before it could be followed

    return follow
