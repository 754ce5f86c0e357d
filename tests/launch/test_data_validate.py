"""`cami2v data validate` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from launch.data import main
from tests.data_pipeline.raw_folders import clips_folder

QUICK = ["validate.processes=1", "validate.min_frames=4", "validate.epipolar_every=0"]


def cami2v_data_validate(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cami2v data", "validate", *QUICK, *overrides])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_a_sound_folder_ends_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=2)
    assert cami2v_data_validate(monkeypatch, f"source={raw}", "strict=true") == 0
    printed = capsys.readouterr().out
    assert (
        printed
        == f"{raw}: folder (video_clips), 2 clips, 0 compared with their frames\n0 errors, 0 warnings, 0 notes\n"
    )


def test_an_error_ends_with_1_and_is_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=2)
    (raw / "video_clips" / "clip1.mp4").unlink()
    report = tmp_path / "report.json"
    assert cami2v_data_validate(monkeypatch, f"source={raw}", f"report={report}") == 1
    assert "error   video_missing (1)" in capsys.readouterr().out
    (found,) = json.loads(report.read_text())["findings"]
    assert (found["check"], found["shard"], found["clip"]) == ("video_missing", "clip1.txt", "clip1")


def test_a_warning_ends_with_1_only_if_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = clips_folder(tmp_path / "raw", clips=1)
    short = f"source={raw}", "validate.min_frames=13"
    assert cami2v_data_validate(monkeypatch, *short) == 0
    assert cami2v_data_validate(monkeypatch, *short, "strict=true") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "source: required and not set"),
        (["source=nowhere"], "source=nowhere: no such folder"),
        (["source=.", "validate.epipolar_every=-1"], "validate.epipolar_every=-1: must be at least 0"),
        (["source=.", "validate.fast=true"], "validate.fast=true: no such key"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cami2v_data_validate(monkeypatch, *overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
