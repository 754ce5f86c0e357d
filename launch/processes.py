"""One process or several: starts this program again through torchrun, and ties the copies to their parent."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from dataclasses import dataclass
from typing import NoReturn

from launch.compose import job_arguments


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


def start_processes(module: str, count: int) -> NoReturn:
    """Run `python -m <module>` with this job's overrides in `count` processes on this machine; exit as they did."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # The failing process has said why; a table and a traceback of the launcher would bury it.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        run(parse_args(["--standalone", f"--nproc-per-node={count}", "-m", module, *job_arguments()]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"error: process {rank} was killed ({name}); the others were stopped", file=sys.stderr)
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 1) from None
    raise SystemExit(0)


def die_with_parent() -> None:
    """Ask Linux to kill this process when torchrun dies: after `kill -9` of the parent nothing trains on."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
