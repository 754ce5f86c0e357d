"""`cami2v pack` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from data_pipeline.manifest import read_manifest
from launch.pack import main
from tests.data_pipeline.raw_folders import clips_folder, edit_line

TINY_WORLD = [
    "world.rooms=1",
    "world.sources={train: 1, validation: 1, test: 1}",
    "world.clips_per_source=1",
    "world.frames_per_clip=4",
    "world.width=64",
    "world.height=36",
    "world.supersampling=1",
]


def cami2v_pack(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr(sys, "argv", ["cami2v pack", "pack.min_frames=4", "pack.processes=1", *overrides])
    main()


def test_a_folder_packs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=3)
    (raw / "video_clips" / "clip1.mp4").unlink()
    overrides = ["pack.on_bad_clip=drop", "pack.max_drop_rate=0.5"]
    cami2v_pack(monkeypatch, f"source={raw}", f"output={tmp_path}/set", *overrides)
    printed = capsys.readouterr().out
    assert "3 clips found, 2 packed, 1 left out\n  video_missing: 1 (clip1)\n" in printed
    assert f"cami2v train data={tmp_path}/set" in printed
    assert read_manifest(tmp_path / "set").generator["source"] == "raw"


def test_the_default_source_is_the_synthetic_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cami2v_pack(monkeypatch, *TINY_WORLD)
    manifest = read_manifest(tmp_path / "data" / "shards" / "synthetic")
    assert {name: split.samples for name, split in manifest.splits.items()} == {"train": 1, "validation": 1, "test": 1}
    assert manifest.generator["world"]["frames_per_clip"] == 4
    report = json.loads((tmp_path / "data" / "shards" / "synthetic" / "pack_report.json").read_text())
    assert report["timestamps_off_by_more_than_8_ms"] == {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing video", "clip1.mp4: no such video"),
        ("nan pose", "clip1.txt line 4: the camera has a NaN"),
        ("pose count", "clip1.mp4: 12 frames, but"),
        ("typo", "pack.frame_format.crv: no such key"),
        ("wrong type", "pack.min_shards: got 'many'"),
        ("no source", "no such folder"),
        ("wrong layout", "expected one of 'auto' or one of 'videos', 'video_clips', 'pixelsplat'"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    fault: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=3)
    wrong = {"typo": "+pack.frame_format.crv=3", "wrong type": "pack.min_shards=many", "wrong layout": "layout=re10k"}
    overrides = [wrong[fault]] if fault in wrong else []
    poses = raw / "pose_files" / "clip1.txt"
    if fault == "missing video":
        (raw / "video_clips" / "clip1.mp4").unlink()
    elif fault == "nan pose":
        edit_line(poses, 4, "0.500000000", "nan")
    elif fault == "pose count":
        poses.write_text("\n".join(poses.read_text().splitlines()[:-1]))
    source = tmp_path / "nowhere" if fault == "no source" else raw
    with pytest.raises(SystemExit) as caught:
        cami2v_pack(monkeypatch, f"source={source}", f"output={tmp_path}/set", *overrides)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "set").exists()
