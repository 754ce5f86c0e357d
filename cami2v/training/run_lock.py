"""One training per run folder: two submissions of a run must not write over each other's checkpoints."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cami2v.training.run_folder import replace_text

logger = logging.getLogger(__name__)

LOCK = "RUNNING"
_BEAT_SECONDS = 5.0
_SILENCE_SECONDS = 30.0
"""A holder on another host that gives no sign of life for so long is dead, whatever the clocks say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who trains in a run folder: process 0 of the run."""

    host: str
    machine: str
    """Boot and process namespace: where it equals ours, the process number can be looked up."""
    pid: int
    started: str
    """In clock ticks after boot: process numbers are used again."""
    slurm_job: str | None
    beat: int = 0

    @property
    def name(self) -> str:
        """Words for a message."""
        job = f" (Slurm job {self.slurm_job})" if self.slurm_job else ""
        return f"process {self.pid} on {self.host}{job}"

    def same_process(self, other: Holder) -> bool:
        """Return whether both are one process, whatever it has counted."""
        return replace(self, beat=0) == replace(other, beat=0)


@contextlib.contextmanager
def hold(folder: Path, *, silence_seconds: float = _SILENCE_SECONDS) -> Iterator[None]:
    """Train in this folder alone; raises ValueError where another process is alive that does.

    A holder that was killed is not waited for on its own machine, nor where Slurm starts its job again; on another
    machine it counts as dead once it is silent for `silence_seconds`.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    ours = _this_process()
    _take(path, ours, silence_seconds)
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, ours, done), name="run lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        holder = _read(path)
        if holder is not None and holder.same_process(ours):
            path.unlink(missing_ok=True)
        if is_new:
            # What fails before it writes anything leaves no trace; a folder that holds something stays.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _take(path: Path, ours: Holder, silence_seconds: float) -> None:
    while True:
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            file.write(json.dumps(asdict(ours)))
            return
        holder = _read(path) or _read_again(path)
        if holder is not None:
            if _alive(path, holder, ours, silence_seconds):
                raise ValueError(
                    f"{path.parent}: {holder.name} trains in this folder; two would write over each other's "
                    "checkpoints. End that one first, or start another run under another name=... or paths.runs=..."
                )
            logger.warning("%s was killed; continuing in its folder", holder.name)
        _remove(path, holder)


def _remove(path: Path, holder: Holder | None) -> None:
    """Take the file of a dead holder away, unless another newcomer did and stands in its place."""
    doomed = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, doomed)
        if _read(doomed) != holder:
            os.rename(doomed, path)
        doomed.unlink(missing_ok=True)


def _alive(path: Path, holder: Holder, ours: Holder, silence_seconds: float) -> bool:
    if holder.machine == ours.machine:
        return _started(holder.pid) == holder.started
    if holder.slurm_job is not None and holder.slurm_job == ours.slurm_job:
        return False
    logger.warning("%s trained here last; waiting %.0f s for a sign of life", holder.name, silence_seconds)
    until = time.monotonic() + silence_seconds
    while time.monotonic() < until:
        time.sleep(min(1.0, silence_seconds / 10))
        if _read(path) != holder:
            return True
    return False


def _beat(path: Path, ours: Holder, done: threading.Event) -> None:
    beat = 0
    while not done.wait(_BEAT_SECONDS):
        beat += 1
        holder = _read(path)
        if holder is None or not holder.same_process(ours):
            logger.error("%s: somebody else trains here now", path.parent)
            return
        try:
            replace_text(path, json.dumps(asdict(replace(ours, beat=beat))))
        except OSError as error:
            logger.warning("%s: no sign of life could be written (%s)", path, error)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def _read_again(path: Path) -> Holder | None:
    """Read a file that is not whole: who creates one needs a moment to fill it."""
    time.sleep(0.5)
    return _read(path)


def _this_process() -> Holder:
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    machine = f"{boot.read_text().strip()} {os.readlink(namespace)}" if boot.exists() else socket.gethostname()
    return Holder(
        host=socket.gethostname(), machine=machine, pid=os.getpid(), started=_started(os.getpid()) or "",
        slurm_job=os.environ.get("SLURM_JOB_ID"),
    )  # fmt: skip


def _started(pid: int) -> str | None:
    """Return when a process began; None for one that is gone or only waits to be buried."""
    try:
        # The name in parentheses may hold spaces; state is the first field after it, the start the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
