"""`cami2v data view` as a user types it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launch.data import main
from tests.data_pipeline.raw_folders import clips_folder


def test_the_page_is_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["cami2v data", "view", f"source={raw}", "select.clips=[clip2]", "view.processes=1"]
    )
    main()
    printed = capsys.readouterr().out
    assert printed.startswith("1 clips, 1 findings\npage: data/view/raw.html (0.0 MiB")
    assert 'data-clip="clip2"' in (tmp_path / "data" / "view" / "raw.html").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "source: required and not set"),
        (["source=nowhere"], "source=nowhere: no such folder"),
        (["source=.", "view.crf=60"], "view.crf=60: must be from 0"),
        (["source=.", "select.cout=3"], "select.cout=3: no such key; did you mean"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cami2v data", "view", *overrides])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
