"""Several local processes: what reaches them, what comes back, who is left. The processes here are small scripts."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cami2v.training.preemption import INTERRUPT_EXIT_CODE, REQUEUE_EXIT_CODE
from launch import local_processes
from launch.local_processes import LocalProcesses
from tests.warm_processes import started_module

OBEDIENT = """
import os, pathlib, signal, sys, time
def obey(number, frame):
    pathlib.Path(sys.argv[1], f"{os.environ['RANK']}-{signal.Signals(number).name}").touch()
    sys.exit(85)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, obey)
pathlib.Path(sys.argv[1], f"ready-{os.environ['RANK']}").touch()
time.sleep(60)
"""


def start(script: str, *arguments: str) -> LocalProcesses:
    return LocalProcesses([sys.executable, "-c", script, *arguments], 2)


def signalled(tmp_path: Path, script: str, number: int, ready: Callable[[], bool]) -> int:
    """Start the script twice, signal what started it as soon as they are ready; return its exit code."""
    with started_module("tests.launch.two_processes", [script, str(tmp_path)]) as started:
        deadline = time.monotonic() + 120
        while not ready():
            assert not started.failure(), started.said("stderr")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (process,) = started.processes
        assert process.pid is not None
        os.kill(process.pid, number)
        return started.wait(120)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_process_and_the_requeue_code_comes_back(tmp_path: Path, number: int) -> None:
    code = signalled(tmp_path, OBEDIENT, number, lambda: len(list(tmp_path.glob("ready-*"))) == 2)
    assert code == REQUEUE_EXIT_CODE
    name = signal.Signals(number).name
    assert sorted(path.name for path in tmp_path.glob("?-SIG*")) == [f"0-{name}", f"1-{name}"]


def test_processes_too_young_to_handle_a_signal_count_as_stopped_by_it(tmp_path: Path) -> None:
    young = "import pathlib, sys, time; pathlib.Path(sys.argv[1], 'ready').touch(); time.sleep(60)"
    for number, code in ((signal.SIGTERM, REQUEUE_EXIT_CODE), (signal.SIGINT, INTERRUPT_EXIT_CODE)):
        assert signalled(tmp_path, young, number, (tmp_path / "ready").exists) == code
        (tmp_path / "ready").unlink()


def test_a_killed_process_is_named_and_takes_the_others_down(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(local_processes, "_SECONDS_TO_FAIL", 0.5)
    deaf = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""
    processes = start(deaf)
    assert processes.wait() == 1
    # The other one did not sleep to its end.
    assert sorted(child.returncode for child in processes._children) == [-signal.SIGKILL] * 2
    said = capfd.readouterr().err
    assert said.startswith("error: process 1 of 2 was killed by SIGKILL (out of memory?); the others were stopped.")
    assert "resume=auto" in said


def test_a_failure_comes_back_with_its_code_and_success_waits_for_all() -> None:
    assert start("import os, sys, time; time.sleep(0.2); sys.exit(2 * (os.environ['RANK'] == '1'))").wait() == 2
    assert start("import os, time; time.sleep(0.5 * int(os.environ['RANK']))").wait() == 0


def test_processes_get_what_torch_needs_to_find_each_other(tmp_path: Path) -> None:
    meet = """
import datetime, os, pathlib, sys, torch.distributed as d
store, rank, world = next(d.rendezvous("env://", timeout=datetime.timedelta(seconds=60)))
store.set(f"rank{rank}", str(os.getppid()))
pathlib.Path(sys.argv[1], str(rank)).write_text(store.get(f"rank{1 - rank}").decode())
"""
    assert start(meet, str(tmp_path)).wait() == 0
    assert {(tmp_path / rank).read_text() for rank in "01"} == {str(os.getpid())}
