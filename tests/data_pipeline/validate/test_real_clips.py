"""The six real clips: squashed pixels, and nothing else that is severe."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.validate.clip import ClipOptions
from data_pipeline.validate.findings import Check, Severity
from data_pipeline.validate.report import Report
from data_pipeline.validate.run import validate
from tests.data_pipeline.raw_folders import pack_quietly

pytestmark = pytest.mark.real_data

REPOSITORY = Path(__file__).resolve().parents[3]
READING = ReadSettings(layout="auto", frames_per_second=None, camera_axes=None, each_clip_is_a_source=False)


@pytest.fixture(scope="module")
def real_clips() -> Path:
    folder = Path(os.environ.get("CAMI2V_REAL_CLIPS", REPOSITORY.parent / "shared" / "realestate10k_sample"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder} (set CAMI2V_REAL_CLIPS)")
    return folder


def look(source: Path) -> Report:
    options = ClipOptions(min_frames=16, decode=True, epipolar_every=1, processes=1)
    return validate(source, options, READING, keep_shards=False, progress=False)


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
def test_squashed_pixels_and_nothing_else_severe(packed: bool, real_clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "set" if packed else real_clips
    if packed:
        pack_quietly(real_clips, source)
    report = look(source)
    severe = [each for each in report.findings if each.severity is not Severity.NOTE]
    assert {each.check for each in severe} == {Check.PIXELS_SQUASHED}
    assert len({each.clip for each in severe}) == len(severe) == report.clips
    assert report.compared == report.clips
    assert all("pixels 1.185 times as wide as high" in each.found for each in severe)


def test_inverted_poses_of_real_clips_are_found(real_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "video_clips").symlink_to(real_clips / "video_clips")
    (tmp_path / "captions.json").symlink_to(real_clips / "captions.json")
    (tmp_path / "pose_files").mkdir()
    for path in (real_clips / "pose_files").glob("*.txt"):
        address, *lines = path.read_text().splitlines()
        rows = np.array([line.split() for line in lines], np.float64)
        poses = rows[:, 7:].reshape(-1, 3, 4)
        rotation = poses[:, :, :3].transpose(0, 2, 1)
        rows[:, 7:] = np.concatenate([rotation, -rotation @ poses[:, :, 3:]], axis=2).reshape(-1, 12)
        written = [" ".join([f"{row[0]:.0f}", *(f"{value:.9f}" for value in row[1:])]) for row in rows]
        (tmp_path / "pose_files" / path.name).write_text("\n".join([address, *written]) + "\n")
    report = look(tmp_path)
    assert sum(each.check is Check.POSES_INVERTED for each in report.findings) == report.clips
