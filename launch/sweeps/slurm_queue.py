"""Slurm's queue as one user sees it, asked once for all jobs that are followed."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

CANCELLED = "CANCELLED"
GOES_WELL = "COMPLETED"
TAKEN_AWAY = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED")
"""How a job ends that Slurm took its nodes from and did not put back."""
ENDED = (GOES_WELL, CANCELLED, "FAILED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", *TAKEN_AWAY)
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """One job, of which Slurm forgets a few minutes after its end."""

    number: str
    state: str
    script: Path

    @property
    def ended(self) -> bool:
        """Whether it will not run again."""
        return self.state in ENDED


class SlurmQueue:
    """Ask `squeue` at most every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._asked: float | None = None
        self._jobs: dict[str, QueuedJob] | None = None
        self._rests_until = 0.0
        self._accepted = False
        self._silent = False

    def jobs(self, *, fresh: bool = False) -> dict[str, QueuedJob] | None:
        """Return this user's jobs by number; None where Slurm does not answer, which says nothing about them."""
        now = time.monotonic()
        if fresh or self._asked is None or now - self._asked >= self.seconds:
            self._asked, self._jobs = now, self._ask()
        return self._jobs

    @property
    def rests(self) -> bool:
        """Whether Slurm has just refused a job, so that it is better not asked again yet."""
        return time.monotonic() < self._rests_until

    def accepted(self) -> None:
        """Note that Slurm has taken a job, which no earlier answer can hold."""
        self._accepted, self._asked = True, None

    def refused(self, error: ValueError) -> None:
        """Note that it has refused one, for the moment if it has taken others. Raises the error otherwise."""
        if not self._accepted:
            raise error
        self._rests_until = time.monotonic() + self.seconds
        logger.warning("%s; trying again", error)

    def _ask(self) -> dict[str, QueuedJob] | None:
        command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%o"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            self._no_answer(str(error))
            return None
        if answer.returncode != 0:
            self._no_answer(" ".join(answer.stderr.split()) or f"exit code {answer.returncode}")
            return None
        self._silent = False
        return {job.number: job for job in map(_job, answer.stdout.splitlines()) if job is not None}

    def _no_answer(self, reason: str) -> None:
        if not self._silent:
            logger.warning("squeue does not answer (%s); waiting for it", reason)
        self._silent = True


def _job(line: str) -> QueuedJob | None:
    number, _, rest = line.strip().partition("|")
    state, _, script = rest.partition("|")
    return QueuedJob(number, state, Path(script)) if script else None


def cancel(numbers: Sequence[str]) -> None:
    """Let Slurm end jobs; those that have ended are passed over."""
    subprocess.run(["scancel", *numbers], capture_output=True, check=False)
