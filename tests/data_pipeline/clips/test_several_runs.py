"""Several runs, tasks of a job array, and a disk that is full, on one output of clips."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.clips import cut
from data_pipeline.clips.clips import ClipsReport, cut_clips
from data_pipeline.file_locks import passing_lock
from tests.data_pipeline.clips.numbered_videos import constant, write_cameras, write_video
from tests.data_pipeline.clips.test_clips import SETTINGS, micro, numbers_in


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Five videos of one clip each."""
    times = constant(30, Fraction(30))
    for number in range(5):
        write_video(tmp_path / "videos" / f"s{number}.mp4", times)
        write_cameras(tmp_path / "list" / f"c{number}.txt", f"s{number}", micro(times, range(5, 9 + 4 * number)))
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that were decoded to be cut."""
    videos = []
    read = cut.read_forward

    def noted(video: Path, wanted: Any) -> Iterator[tuple[int, np.ndarray]]:
        videos.append(video.stem)
        return read(video, wanted)

    monkeypatch.setattr(cut, "read_forward", noted)
    return videos


def cut_in(folder: Path, output: str = "raw", **changes: Any) -> ClipsReport:
    return cut_clips(folder / "videos", folder / "list", folder / output, replace(SETTINGS, **changes), progress=False)


def files(folder: Path) -> dict[str, bytes]:
    """Return what is there but for reports, which say whether a clip was there before."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and "report" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_two_runs_share_the_work(sources: Path, decoded: list[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = [run.result() for run in [pool.submit(cut_in, sources) for _ in range(2)]]
    assert sorted(decoded) == [f"s{number}" for number in range(5)]
    assert [report.there for report in reports] == [5, 5]
    cut_in(sources, "alone")
    assert files(sources / "raw") == files(sources / "alone")
    assert not list((sources / "raw").glob(".*"))


def test_a_video_in_other_hands_is_waited_for_at_the_end(sources: Path, decoded: list[str]) -> None:
    locks = sources / "raw" / ".locks"
    locks.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        with passing_lock(locks / "s1.lock", wait=True):
            run = pool.submit(cut_in, sources)
            while len(decoded) < 4:
                assert not run.done()
            assert "s1" not in decoded
        assert run.result().there == 5
    assert decoded[-1] == "s1"


def test_tasks_of_a_job_array(sources: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for task in range(2):
        report = cut_in(sources, task=task, tasks=3)
        assert report.path.name == f"clips_report.{task}-of-3.json"
        assert json.loads(report.path.read_text())["clips_listed"] == 2
    for name, value in {"ID": 2, "COUNT": 3, "MIN": 0, "MAX": 2}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert cut_in(sources).there == 1
    assert sorted(decoded) == [f"s{number}" for number in range(5)]
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    assert cut_in(sources).lines() == ["5 clips in the list, 5 there (100.0 %), 5 of them before"]
    assert len(decoded) == 5
    with pytest.raises(ValueError, match=r"clips.task=3: must be from 0 to 2 with clips.tasks=3"):
        cut_in(sources, task=3, tasks=3)


def test_a_full_disk_is_one_line_and_loses_nothing(sources: Path) -> None:
    """The system itself refuses to write beyond a size that the longer clips have."""
    cut_in(sources, "alone")
    limit = max(path.stat().st_size for path in (sources / "alone").rglob("c2.*")) + 1
    command = [sys.executable, "-m", "launch.data_clips", "clips.processes=1"]
    folders = {"videos": "videos", "cameras": "list", "output": "raw"}
    command += [f"{key}={sources / name}" for key, name in folders.items()]
    stopped = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert stopped.returncode == 2, stopped.stderr
    line = stopped.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: output={sources}/raw: {sources}/raw/")
    assert "File too large; the clips cut so far are kept: make room, and type the same command again" in line
    assert "Traceback" not in stopped.stderr
    assert sorted(path.name for path in (sources / "raw" / "pose_files").iterdir()) == ["c0.txt", "c1.txt", "c2.txt"]
    assert not list((sources / "raw").rglob(".*.partial"))
    report = cut_in(sources)
    assert {result.clip_id for result in report.results if result.kept} == {"c0", "c1", "c2"}
    assert files(sources / "raw") == files(sources / "alone")
    assert numbers_in(sources / "raw" / "video_clips" / "c4.mp4") == list(range(5, 25))
