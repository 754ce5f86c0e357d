"""The report's tables in Weights & Biases, without network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cami2v.evaluation.report import report
from cami2v.evaluation.wandb_tables import WandbSettings, log_tables, tables
from tests.cami2v.evaluation.reported import OPTIONS, POSES, write_measured


def test_tables_hold_what_the_report_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    errors: dict[str, list[float | None]] = {f"clip-{number:02d}": [float(number), None] for number in range(11)}
    folder = write_measured(tmp_path / "evaluation", {**errors, "clip-11": [None, None]})
    report(folder, [POSES], OPTIONS)
    results = json.loads((folder.root / "results.json").read_text())
    fvd = {"label": "FVD VideoGPT", "value": 91.5, "clips": 12, "notes": ["few clips"]}
    results["summary"]["generated"]["distances"]["fvd"] = fvd
    made = tables(results)
    header, rows = made["summary"]
    first = dict(zip(header, rows[0], strict=True))
    figure = results["summary"]["generated"]["figures"]["RotErr_sum_rad"]
    assert (first["figure"], first["mean"], first["failed"]) == ("RotErr_sum_rad", 5.0, 1)
    assert [first["mean_low"], first["mean_high"]] == figure["mean_interval"]
    assert made["distances"][1] == [["generated", "fvd", "FVD VideoGPT", 91.5, 12, "few clips"]]
    assert len(made["clips"][1]) == 12
    assert made["clips"][1][11][:3] == ["generated", "clip-11", 2]
    assert len(made["trials"][1]) == 24

    log_tables(results, folder.root, WandbSettings(mode="offline", project="cami2v", entity=None))
    [stored] = (folder.root / "wandb").glob("offline-run-*/files/media/table/clips_*.table.json")
    table = json.loads(stored.read_text())
    assert table["columns"] == made["clips"][0]
    assert table["data"] == made["clips"][1]


def test_off_touches_nothing(tmp_path: Path) -> None:
    log_tables({}, tmp_path, WandbSettings(mode="off", project="cami2v", entity=None))
    assert not list(tmp_path.iterdir())
