"""The command line of `cami2v data clips`."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

from tests.data_pipeline.clips.numbered_videos import constant, write_cameras, write_video


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.cli", "data", "clips", "clips.processes=1"]
    folders = [f"{key}={tmp_path / key}" for key in ("videos", "cameras", "output")]
    return subprocess.run([*command, *folders, *arguments], capture_output=True, text=True)


def test_clips_are_cut_and_the_next_command_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "src.mp4", constant(30, Fraction(30)))
    write_cameras(tmp_path / "cameras" / "a.txt", "src", [round(number / 30 * 1e6) for number in range(5, 15)])
    write_cameras(tmp_path / "cameras" / "b.txt", "gone", [0, 33333])
    finished = run(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "2 clips in the list, 1 there (50.0 %), 0 of them before" in finished.stdout
    assert "video_missing: 1, e.g. b:" in finished.stdout
    assert f"cami2v pack source={tmp_path}/output" in finished.stdout
    assert (tmp_path / "output" / "video_clips" / "a.mp4").is_file()


def test_nothing_there_is_an_exit_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_cameras(tmp_path / "cameras" / "b.txt", "gone", [0, 33333])
    assert run(tmp_path).returncode == 1
    wrong = run(tmp_path, "clips.frame_format.crf=99")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: clips.frame_format=")
    assert len(wrong.stderr.splitlines()) == 1
