"""A trial as Slurm jobs, one per command: they outlive the sweep, and the next one takes them over.

<trial>/slurm/{train,evaluate}.sbatch  their logs  exit-code-<job>  submitted.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cami2v.training.preemption import REQUEUE_EXIT_CODE, StopRequest
from cami2v.training.run_folder import replace_text
from data_pipeline.file_locks import FileLock, try_lock
from launch.slurm import Slurm, sbatch
from launch.slurm_script import Job
from launch.sweeps.slurm_queue import CANCELLED, GOES_WELL, TAKEN_AWAY, QueuedJob, SlurmQueue, cancel
from launch.sweeps.trial import last_error

FOLDER = "slurm"
"""Of scripts and logs, in the trial's run folder."""
_FAILURE = 1
_SECONDS_TO_BE_SEEN = 60.0
"""How long a file written on another machine may take to be seen on this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What a trial has come to: which of its commands runs, as which job."""

    command: int
    job: str | None
    """None: that command is to be submitted again."""
    time: float

    @classmethod
    def read(cls, folder: Path) -> Submitted | None:
        """Read it from the trial's folder; None where nothing was submitted."""
        path = folder / "submitted.json"
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Write it there."""
        replace_text(folder / "submitted.json", json.dumps(asdict(self)) + "\n")


class SlurmTrial:
    """Submit the jobs of a trial one after the other, and follow them."""

    adopted = False
    obstacle = ""

    def __init__(
        self, *, cluster: Slurm, jobs: Callable[[], Sequence[Job]], folder: Path, queue: SlurmQueue, lock: Path
    ) -> None:
        """`jobs` describes the commands, `folder` is the trial's own for scripts, `lock` is held while Slurm is asked.

        Raises ValueError from `start` and `poll` where Slurm refuses the first job it is given.
        """
        self.cluster = cluster
        self.folder = folder
        self.queue = queue
        self.lock = lock
        self._jobs_of = jobs
        self._jobs: Sequence[Job] = ()
        self._now = Submitted(command=0, job=None, time=time.time())
        self._ending = False
        self._gone_since: float | None = None
        self._words = ""
        self._log = folder

    def start(self) -> bool:
        """Adopt the job that runs or has just ended, otherwise submit one; false where that is not possible yet."""
        if self.queue.rests:
            self.obstacle = "Slurm has refused a job, waiting"
            return False
        lock = try_lock(self.lock)
        if lock is None:
            self.obstacle = "its processes of the last sweep still save, waiting"
            return False
        with lock:
            queued = self.queue.jobs(fresh=True)
            if queued is None:
                self.obstacle = "squeue does not answer, waiting"
                return False
            self._jobs = self._jobs_of()
            before = Submitted.read(self.folder)
            running = self._running(queued, before)
            if running is not None:
                running.write(self.folder)
                return self._adopt(running)
            if before is not None:
                self._now = before
                if before.job is not None and self._is_result(before.job, queued):
                    return self._adopt(before)
            return self._submit(self._now.command, lock)

    def poll(self) -> int | None:
        """Return the exit code of the trial, REQUEUE_EXIT_CODE where a job was preempted and does not come back."""
        queued = self.queue.jobs()
        if self._now.job is None:
            self._submit_again()
            return None
        job = self._now.job
        if queued is None or (job in queued and not queued[job].ended):
            self._gone_since = None
            return None
        code = self._code(job, queued.get(job))
        if code == 0 and self._now.command + 1 < len(self._jobs):
            if self._ending:
                return REQUEUE_EXIT_CODE
            self._forget_job(self._now.command + 1)
            self._submit_again()
            return None
        if code not in (None, 0):
            self._forget_job(self._now.command)
        return code

    def end(self) -> None:
        """Cancel the job; Slurm sends SIGTERM, and training saves."""
        self._ending = True
        now = self._now if self._now.job is not None else Submitted.read(self.folder)
        if now is not None and now.job is not None:
            cancel([now.job])

    def leave(self, asked: StopRequest) -> bool:
        """Stay where it is: the job does not need the sweep."""
        return False

    @property
    def place(self) -> str:
        """Name the job."""
        return f"job {self._now.job}"

    @property
    def log(self) -> str:
        """Path of the log of its last job."""
        return str(self._log)

    @property
    def seconds(self) -> float:
        """Time since the job was submitted, that in the queue included."""
        return time.time() - self._now.time

    def last_words(self) -> str:
        """Return the line of the log, or Slurm's word, that says best why the job ended."""
        return self._words

    def _adopt(self, submitted: Submitted) -> bool:
        self._follow(submitted)
        self.adopted = True
        return True

    def _follow(self, submitted: Submitted) -> None:
        assert submitted.job is not None
        self._now, self._gone_since = submitted, None
        self._log = Path(self._jobs[submitted.command].log_of(submitted.job))

    def _running(self, queued: Mapping[str, QueuedJob], before: Submitted | None) -> Submitted | None:
        """Find a job of this trial that Slurm has, whether or not there was time to note it."""
        for index, job in enumerate(self._jobs):
            for other in queued.values():
                if other.script == job.path and not other.ended:
                    known = before is not None and before.job == other.number
                    return Submitted(
                        command=index, job=other.number, time=before.time if known and before else time.time()
                    )
        return None

    def _is_result(self, job: str, queued: Mapping[str, QueuedJob]) -> bool:
        """Whether a job ended by itself while nobody looked; one that was cancelled or vanished is started again."""
        state = queued[job].state if job in queued else None
        left = self._left(job)
        return state == GOES_WELL or left == 0 or (left not in (None, REQUEUE_EXIT_CODE) and state != CANCELLED)

    def _submit_again(self) -> None:
        if self.queue.rests:
            return
        lock = try_lock(self.lock)
        if lock is not None:
            with lock:
                self._submit(self._now.command, lock)

    def _submit(self, command: int, lock: FileLock) -> bool:
        job = self._jobs[command]
        self.cluster.write(job)
        try:
            number = sbatch(job.path, keep_open=[lock.descriptor])
        except ValueError as error:
            self.obstacle = "Slurm has refused a job, waiting"
            self.queue.refused(error)
            return False
        self.queue.accepted()
        submitted = Submitted(command=command, job=number, time=time.time())
        submitted.write(self.folder)
        self._follow(submitted)
        return True

    def _forget_job(self, command: int) -> None:
        """Let the next start begin with this command instead of finding the job that has ended."""
        self._now = Submitted(command=command, job=None, time=self._now.time)
        self._now.write(self.folder)

    def _code(self, job: str, ended: QueuedJob | None) -> int | None:
        """Return the exit code of a job that Slurm is done with; None: it may still come into sight."""
        state, left = ended.state if ended is not None else None, self._left(job)
        if state == GOES_WELL or left == 0:
            return 0
        if state == CANCELLED:
            self._words = f"job {job} was cancelled"
            return _FAILURE
        if state in TAKEN_AWAY:
            self._words = f"job {job} ended: {state}"
            return REQUEUE_EXIT_CODE
        if left is None and state in (None, "FAILED"):
            self._gone_since = self._gone_since or time.monotonic()
            if time.monotonic() - self._gone_since < _SECONDS_TO_BE_SEEN:
                return None
        self._words = self._reason(job, state, left)
        return _FAILURE if left is None else left

    def _reason(self, job: str, state: str | None, left: int | None) -> str:
        if left is None or state not in (None, "FAILED"):
            return f"job {job} ended: {state or 'it left the queue without an exit code'}"
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        return f"exit code {left}: {last_error(text)}"

    def _left(self, job: str) -> int | None:
        path = self._jobs[self._now.command].exit_code_of(job)
        try:
            return int(path.read_text())
        except (FileNotFoundError, ValueError):
            return None


def running_jobs(trials: Mapping[int, Path], queue: SlurmQueue) -> dict[int, str]:
    """Return the job of every trial that Slurm still has, by trial number; `trials` holds the run folders.

    Where Slurm does not answer, jobs that were submitted count as running.
    """
    submitted = {number: Submitted.read(run / FOLDER) for number, run in trials.items()}
    jobs = {number: each.job for number, each in submitted.items() if each is not None and each.job is not None}
    queued = queue.jobs() if jobs else {}
    return {number: job for number, job in jobs.items() if queued is None or (job in queued and not queued[job].ended)}
