"""One process or several: starts this program again as ranks, and ties the copies to their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

from launch.compose import job_arguments
from launch.local_processes import PARENT, LocalProcesses


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Settings of conf/cluster that every program needs."""

    processes: int

    def __post_init__(self) -> None:
        """Raise ValueError for no process."""
        if self.processes < 1:
            raise ValueError(f"cluster.processes: got {self.processes}, expected at least 1")


def launched() -> bool:
    """Tell whether a launcher (torchrun, accelerate launch, srun with its variables set) started this process."""
    return "RANK" in os.environ


def process_count(settings: ClusterSettings) -> int:
    """Return how many processes will train. Raises ValueError where launcher and config disagree."""
    if not launched():
        return settings.processes
    world = int(os.environ["WORLD_SIZE"])
    if settings.processes not in (1, world):
        raise ValueError(
            f"cluster.processes: got {settings.processes}, but the launcher started {world}; leave it out under "
            "torchrun and accelerate launch"
        )
    return world


def start_processes(module: str, count: int) -> None:
    """Run `python -m <module>` with this job's overrides in `count` processes on this machine; exit as they did.

    Returns where all of them finished.
    """
    code = LocalProcesses([sys.executable, "-m", module, *job_arguments()], count).wait()
    if code:
        raise SystemExit(code)


def die_with_parent() -> None:
    """Ask Linux to kill this process when its launcher dies: after `kill -9` of the parent nothing trains on."""
    if sys.platform == "linux" and (PARENT in os.environ or "TORCHELASTIC_RUN_ID" in os.environ):
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            raise SystemExit("the program that started this process has died")  # before it was asked
