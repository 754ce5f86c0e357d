"""Figures of clips whose motion, length and captions are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.statistics.run import summarise
from data_pipeline.statistics.summary import Summary
from tests.data_pipeline.raw_folders import clips_folder, edit_line, pack_quietly
from tests.data_pipeline.validate import seeded

READING = ReadSettings(layout="auto", frames_per_second=None, camera_axes=None, each_clip_is_a_source=False)
SPLITS = ["train", "train", "train", "test"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = clips_folder(tmp_path / "raw", clips=4, frames=12, splits=SPLITS)
    (folder / "metric_scale.json").write_text(json.dumps({f"clip{k}": 2.0 + k for k in range(4)}))
    return folder


def look(source: Path, processes: int = 1) -> Summary:
    return summarise(source, READING, processes, keep_shards=False, progress=False)


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
def test_figures_are_those_of_the_cameras(packed: bool, raw: Path, tmp_path: Path) -> None:
    if packed:
        pack_quietly(raw, tmp_path / "set")
    content = look(tmp_path / "set" if packed else raw).as_json()
    assert content["splits"] == {
        "test": {"clips": 1, "source_videos": 1},
        "train": {"clips": 3, "source_videos": 3},
    }
    train = {name: figure["splits"]["train"] for name, figure in content["figures"].items()}
    assert train["frames"]["median"] == 12
    assert train["seconds"]["median"] == pytest.approx(11 / 30, abs=1e-5)
    # Frame k turns by 0.02 k radians about y and has t = (0.1 k, 0.02, 0.3).
    assert train["turn_degrees"]["median"] == pytest.approx(np.degrees(0.22), abs=1e-4)
    k = np.arange(12)
    centres = -np.stack(
        [
            np.cos(0.02 * k) * 0.1 * k - np.sin(0.02 * k) * 0.3,
            np.full(12, 0.02),
            np.sin(0.02 * k) * 0.1 * k + np.cos(0.02 * k) * 0.3,
        ],
        axis=1,
    )
    path = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
    assert train["path"]["median"] == pytest.approx(path, rel=1e-6)
    assert train["path_metres"]["median"] == pytest.approx(3 * path, rel=1e-6)
    assert train["field_of_view_degrees"]["median"] == pytest.approx(90, abs=1e-6)
    assert (train["caption_words"]["values"], train["caption_words"]["maximum"]) == (6, 2)
    assert sum(train["frames"]["histogram"]["counts"]) == 3


def test_clips_that_cannot_be_read_are_counted(raw: Path, tmp_path: Path) -> None:
    pack_quietly(raw, tmp_path / "set")
    edit_line(raw / "pose_files" / "train" / "clip0.txt", 4, "0.5", "nan")
    assert look(raw).unreadable == 1

    def broken(about: seeded.About, arrays: seeded.Arrays) -> None:
        arrays["world_to_camera"][2] = np.nan

    seeded.change_clip(tmp_path / "set", broken)
    summary = look(tmp_path / "set", processes=2)
    assert summary.unreadable == 1
    assert "1 clips left out" in "\n".join(summary.lines())


def test_a_picture_and_json_are_written(raw: Path, tmp_path: Path) -> None:
    summary = look(raw)
    summary.write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "stats.json").read_text()) == summary.as_json()
    with Image.open(tmp_path / "out" / "stats.png") as picture:
        assert np.asarray(picture).std() > 5
