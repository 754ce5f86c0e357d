"""A run folder has one writer: the living are refused to, the dead are followed at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cami2v.training.run_lock import LOCK, hold

HOLDS = "import sys, time, pathlib\nfrom cami2v.training.run_lock import hold\n" + (
    "with hold(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(300)"
)


def held_by_another_process(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def written_elsewhere(folder: Path, **changes: Any) -> Callable[[], None]:
    """Write the lock of a process on another machine; return what makes it give a sign of life."""
    with hold(folder):
        holder = json.loads((folder / LOCK).read_text())
    holder |= {"host": "node7", "machine": "another", "slurm_job": "41"} | changes

    def beat() -> None:
        holder["beat"] += 1
        (folder / LOCK).write_text(json.dumps(holder))

    folder.mkdir(exist_ok=True)
    beat()
    return beat


def test_a_living_holder_is_refused_to_and_a_killed_one_followed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = held_by_another_process(folder)
    try:
        before = (folder / LOCK).read_text()
        with pytest.raises(ValueError, match=rf"run: process {other.pid} on .* trains in this folder"), hold(folder):
            pass
        assert (folder / LOCK).read_text() == before
        other.send_signal(signal.SIGKILL)
        # Not buried yet: its number still exists.
        while Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            pass
        with hold(folder):
            assert json.loads((folder / LOCK).read_text())["pid"] != other.pid
    finally:
        other.kill()
        other.wait()
    assert list(folder.iterdir()) == []


def test_a_folder_that_nothing_was_written_to_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights"), hold(tmp_path / "new"):
        raise ValueError("no weights")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    with hold(tmp_path / "old"):
        (tmp_path / "old" / "config.yaml").touch()
    assert [each.name for each in (tmp_path / "old").iterdir()] == ["config.yaml"]


def test_a_holder_on_another_machine_is_believed_dead_when_silent(tmp_path: Path) -> None:
    written_elsewhere(tmp_path)
    with hold(tmp_path, silence_seconds=0.2):
        assert json.loads((tmp_path / LOCK).read_text())["host"] != "node7"
    assert list(tmp_path.iterdir()) == []


def test_a_holder_on_another_machine_that_beats_is_alive(tmp_path: Path) -> None:
    beat = written_elsewhere(tmp_path)
    timer = threading.Timer(0.3, beat)
    timer.start()
    with (
        pytest.raises(ValueError, match=r"on node7 \(Slurm job 41\) trains in this folder"),
        hold(tmp_path, silence_seconds=60.0),
    ):
        pass
    timer.join()


def test_a_job_that_slurm_starts_again_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written_elsewhere(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    with hold(tmp_path, silence_seconds=1e6):
        assert json.loads((tmp_path / LOCK).read_text())["slurm_job"] == "41"


def test_a_lock_that_was_cut_off_holds_nobody(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"host": "no')
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["beat"] == 0


def test_whoever_was_believed_dead_leaves_the_newcomers_lock_alone(tmp_path: Path) -> None:
    with hold(tmp_path):
        written = json.loads((tmp_path / LOCK).read_text()) | {"host": "node7", "machine": "another"}
        (tmp_path / LOCK).write_text(json.dumps(written))
    assert json.loads((tmp_path / LOCK).read_text()) == written
