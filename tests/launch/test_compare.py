"""`cami2v compare`: folders on the command line, files and a page at the end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cami2v.evaluation.report import report
from launch import compare
from tests.cami2v.evaluation.reported import OPTIONS, POSES, write_measured


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs, the second with an = in its name; half as wrong as the first."""
    folders = [tmp_path / "base", tmp_path / "lr=1e-4"]
    for number, folder in enumerate(folders):
        errors = {f"clip-{clip}": [(2.0 - number) * (1 + clip / 10)] for clip in range(12)}
        report(write_measured(folder / "evaluation" / "test", errors), [POSES], OPTIONS)
    return folders


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["cami2v compare", *arguments])
    compare.main()


def test_the_comparison_is_printed_and_written(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, *map(str, runs), f"paths.runs={tmp_path}")
    printed = capsys.readouterr().out
    folder = tmp_path / "compare" / "base-vs-lr=1e-4"
    assert printed.splitlines()[-1] == str(folder / "comparison.html")
    assert (folder / "comparison.md").read_text() in printed
    assert "lr=1e-4 better" in printed
    [comparison] = json.loads((folder / "comparison.json").read_text())["comparisons"]
    first = comparison["differences"][0]
    assert first["mean"] == pytest.approx(-1.55)
    assert first["mean_interval"][0] < -1.55 < first["mean_interval"][1] < 0


def test_what_a_user_got_wrong_is_one_line(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([str(runs[0])], "two or more are compared"),
        ([str(runs[0]), str(runs[0].parent)], "neither an evaluation folder"),
        ([*map(str, runs), "compare.level=0.9"], "compare.level"),
        ([*map(str, runs), "compare.bootstrap.level=95"], "between 0 and 1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            call(monkeypatch, *arguments)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
