"""Runs that differ are told apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cami2v.checkpoints.save import WEIGHTS
from cami2v.training.run_folder import RunFolder
from tools.compare_losses import compare, main


def run_folder(path: Path, losses: list[float], weight: float = 1.0) -> Path:
    run = RunFolder(path)
    checkpoint = run.checkpoint(len(losses))
    checkpoint.mkdir(parents=True)
    rows = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses, start=1)]
    run.metrics.write_text("\n".join([*rows, json.dumps({"step": 1, "validation_loss": 3.0})]) + "\n")
    save_file({"w": torch.tensor([weight])}, checkpoint / WEIGHTS)
    run.set_latest(checkpoint)
    return path


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["compare_losses", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_noise_passes_and_exactness_does_not_forgive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_folder(tmp_path / "a", [1.0, 0.5])
    second = run_folder(tmp_path / "b", [1.0, 0.5 * (1 + 1e-6)], weight=1.0000001)
    assert compare(first, second).different_weights == ["w"]
    assert compare(first, second).largest_relative_difference == pytest.approx(1e-6)
    assert exit_code(monkeypatch, first, second) == 0
    assert "   2     0.500000000     0.500000500" in capsys.readouterr().out
    assert exit_code(monkeypatch, first, second, "--tolerance", "1e-7") == 1
    assert exit_code(monkeypatch, first, second, "--exact") == 1
    assert exit_code(monkeypatch, first, run_folder(tmp_path / "c", [1.0, 0.5]), "--exact") == 0
    assert exit_code(monkeypatch, first, run_folder(tmp_path / "d", [1.0, 0.5], weight=2.0), "--exact") == 1


def test_a_folder_that_is_no_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, run_folder(tmp_path / "a", [1.0]), tmp_path / "none") == 2
    assert "no metrics.jsonl" in capsys.readouterr().err
