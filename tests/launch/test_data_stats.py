"""`cami2v data stats` as a user types it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launch.data import main
from tests.data_pipeline.raw_folders import clips_folder


def test_the_table_is_printed_and_the_files_are_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cami2v data", "stats", f"source={raw}", "stats.processes=1"])
    main()
    printed = capsys.readouterr().out
    assert printed.startswith("not split: 2 clips of 2 source videos\nframes per clip")
    assert "histograms: data/stats/raw/stats.png" in printed
    assert sorted(path.name for path in (tmp_path / "data" / "stats" / "raw").iterdir()) == ["stats.json", "stats.png"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source=nowhere", "source=nowhere: no such folder"),
        ("stats.processes=0", "stats.processes=0: must be at least"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    override: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cami2v data", "stats", "source=.", override])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
