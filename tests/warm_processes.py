"""Processes that start in no time: forked from one that has imported what programs import, and nothing else.

Importing costs a training process more than ten seconds of a core, and a tiny run only a few. What is tested about
starting itself (launchers, signals, the command line as typed) starts Python anew instead.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

import torch
from torch.distributed import TCPStore

ROOT = Path(__file__).parents[1]
IMPORTED = [
    "torch._inductor.compile_fx", "deepspeed", "open_clip", "diffusers.models.autoencoders.autoencoder_kl", "wandb",
    "webdataset", "launch.train", "launch.sample", "launch.evaluate",
]  # fmt: skip
_SECONDS_TO_FAIL = 20.0
"""After one process has failed the others wait for it in vain."""

# After a fork CUDA cannot be used where the parent has looked at it.
_context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
if not torch.cuda.is_available():
    _context.set_forkserver_preload(IMPORTED)


def plain_environment() -> dict[str, str]:
    """Return this shell's variables without what an engine of this process has left there."""
    ours = ("ACCELERATE_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"OMP_NUM_THREADS": "1"}


def run_module(
    module: str, arguments: Sequence[str] = (), *, processes: int = 1, timeout: float = 540
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <module> <arguments>` to its end, alone or as the ranks of a group; what each said is in order.

    The exit code is that of the first process that failed.
    """
    with started_module(module, arguments, processes=processes) as started:
        code = started.wait(timeout)
        return subprocess.CompletedProcess([module, *arguments], code, started.said("stdout"), started.said("stderr"))


@contextmanager
def started_module(module: str, arguments: Sequence[str] = (), *, processes: int = 1) -> Iterator[Started]:
    """Give the running processes; they are killed when the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        started = Started(module, arguments, processes, Path(folder))
        try:
            yield started
        finally:
            started.kill()


class Started:
    """Running processes of one program."""

    def __init__(self, module: str, arguments: Sequence[str], count: int, folder: Path) -> None:
        environment = plain_environment()
        if count > 1:
            # The store lives here and its port is the kernel's choice: two groups on one machine never meet.
            self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            environment |= {
                "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self._store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            }  # fmt: skip
        self.folder = folder
        self.processes: list[BaseProcess] = []
        for rank in range(count):
            ranked = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})
            process = _context.Process(  # type: ignore[attr-defined]  # every context has it
                target=_program, args=(module, list(arguments), ranked, str(folder / str(rank)))
            )
            process.start()
            self.processes.append(process)

    def wait(self, timeout: float) -> int:
        """Return the first failure's exit code once all have ended. Raises TimeoutExpired where they do not."""
        deadline = time.monotonic() + timeout
        while any(process.exitcode is None for process in self.processes) and self.failure() == 0:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("warm processes", timeout, self.said("stdout"), self.said("stderr"))
            time.sleep(0.02)
        code = self.failure()
        for process in self.processes:
            process.join(_SECONDS_TO_FAIL)
        return code

    def failure(self) -> int:
        """Return the exit code of the first process that failed, 0 for none."""
        return next((process.exitcode for process in self.processes if process.exitcode), 0)

    def said(self, stream: str) -> str:
        """Return what the processes have written, one after the other."""
        paths = [self.folder / f"{rank}.{stream}" for rank in range(len(self.processes))]
        return "".join(path.read_text() for path in paths if path.is_file())

    def kill(self) -> None:
        """Send SIGKILL to all of them, and return when they are gone."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


def _program(module: str, arguments: list[str], environment: Mapping[str, str], output: str) -> None:
    """Be `python -m <module> <arguments>`."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    for number, stream in ((1, "stdout"), (2, "stderr")):
        descriptor = os.open(f"{output}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    # Imported as a part of others; it now runs as the program.
    sys.modules.pop(module, None)
    with _Interpreter():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


class _Interpreter:
    """Ends the process as Python ends at the end of a program, not as multiprocessing does."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        code = 0 if error is None else 1
        if isinstance(error, SystemExit):
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
            else:
                code = error.code or 0
        elif kind is not None and error is not None:
            sys.excepthook(kind, error, traceback)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
