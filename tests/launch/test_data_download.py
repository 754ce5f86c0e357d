"""The command line of `cami2v data download`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", "data", "download", *arguments], capture_output=True, text=True
    )


def test_what_is_missing_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, says in (
        ([], "error: output: required and not set"),
        ([f"cameras={tmp_path}/empty", "output=x"], "no camera files; expected <clip>.txt"),
        ([f"cameras={tmp_path}", "output=x", "download.retry=[gone]"], "download.retry[0]: got 'gone'"),
    ):
        finished = run(*arguments)
        assert finished.returncode == 2, finished.stderr
        assert says in finished.stderr
        assert len(finished.stderr.splitlines()) == 1, finished.stderr


def test_nothing_there_is_an_exit_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "a.txt").write_text(
        "http://127.0.0.1:9/none.mp4\n0 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n"
    )
    finished = run(
        f"cameras={tmp_path}/list", f"output={tmp_path}/videos", "download.attempts=1", "download.pause_seconds=[0,0]"
    )
    assert finished.returncode == 1, finished.stderr
    assert "1 videos in the list, 0 there (0.0 %), 1 tried now" in finished.stdout
    assert "network: 1 (connection failed or stalled, tried again by the next run)" in finished.stdout
