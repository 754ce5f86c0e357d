"""report.html and the pages of clips: what is in the files, without a browser."""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cami2v.camera_control.liveness import CameraEffect
from cami2v.evaluation.camera_effect import measured
from cami2v.evaluation.curve_plot import curve_plot
from cami2v.evaluation.folder import EvaluationFolder
from cami2v.evaluation.report import ReportOptions, report
from cami2v.evaluation.tables import sections
from cami2v.video import write_mp4
from tests.cami2v.evaluation.reported import BOOTSTRAP, FRAMES, POSES, write_measured

CLIPS = [f"clip-{number:02d}" for number in range(12)]
PAGES = ReportOptions(bootstrap=BOOTSTRAP, compatibility="cami2v", clip_pages=True, wandb=None)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> EvaluationFolder:
    """Twelve clips: one failed, one lost a trial, one whose video is corrupt, one without."""
    errors: dict[str, list[float | None]] = {clip: [1.0 + number, 1.5] for number, clip in enumerate(CLIPS)}
    errors["clip-03"], errors["clip-04"] = [None, None], [None, 2.0]
    folder = write_measured(tmp_path_factory.mktemp("report"), errors, truth={clip: [0.1, 0.1] for clip in CLIPS})
    frames = np.zeros((FRAMES, 16, 24, 3), dtype=np.uint8)
    for clip in CLIPS:
        write_mp4(folder.video("ground_truth", clip), frames, 8)
        if clip != "clip-06":
            write_mp4(folder.video("generated", clip), frames, 8)
    folder.video("generated", "clip-05").write_bytes(b"cut off")
    report(folder, [POSES], PAGES)
    return folder


def page(folder: EvaluationFolder, clip: str) -> str:
    return (folder.root / "report" / f"{clip}.html").read_text()


def data(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" class="clip-data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_the_published_table_comes_first_with_floor_counts_and_intervals(reported: EvaluationFolder) -> None:
    text = (reported.root / "report.html").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings[:2] == ["Results, in the layout of the published table", "What the numbers rest on"]
    first = text[text.index("<table>") : text.index("</table>")]
    for head in ("RotErr", "TransErr", "CamMC", "FVD VideoGPT", "FVD StyleGAN", "registered", "failed trials"):
        assert f"<th>{head}</th>" in first
    figure = json.loads((reported.root / "results.json").read_text())["summary"]["generated"]["figures"][
        "RotErr_sum_rad"
    ]
    low, high = figure["mean_interval"]
    assert low < figure["mean"] < high
    assert f"{figure['mean']:.4f} [{low:.4f}, {high:.4f}]" in first
    assert "11/12" in first
    assert "estimator&#x27;s own error" in first
    for fact in (
        "report made on: cpu=",
        "versions: python=",
        "seed=1",
        "manifest_sha256=aaa",
        "95% confidence interval",
    ):
        assert fact in text


def test_markdown_json_and_csv_say_the_same(reported: EvaluationFolder) -> None:
    text = (reported.root / "report.md").read_text()
    results = json.loads((reported.root / "results.json").read_text())
    figure = results["summary"]["generated"]["figures"]["CamMC_sum"]
    assert f"{figure['penalised_mean']:.4f} [" in text
    assert (figure["failed"], figure["failure_rate"]) == (1, pytest.approx(1 / 12))
    assert "## Published procedure: generated" in text
    assert "clip clip-00 does not count" in text
    trials = list(csv.DictReader((reported.root / "results_trials.csv").open()))
    assert len(trials) == 2 * 2 * 12
    lost = [row for row in trials if row["video_set"] == "generated" and row["failure"]]
    assert [(row["clip_id"], row["trial"]) for row in lost] == [("clip-03", "0"), ("clip-03", "1"), ("clip-04", "0")]
    assert [row["RotErr_sum_rad"] for row in trials if row["clip_id"] == "clip-04"][:2] == ["0.1", "0.1"]
    [failed] = [clip for clip in results["clips"] if clip["video_set"] == "generated" and clip["clip_id"] == "clip-03"]
    assert failed["penalties"]["RotErr_sum_rad"] == 9.0


def test_fvd_has_its_columns_and_its_settings(reported: EvaluationFolder) -> None:
    results = json.loads((reported.root / "results.json").read_text())
    common = {"clips": 12, "frames": "16", "resize": "224x224 squashed"}
    for video_set, value, compared in (("generated", 91.5, "with the true videos"), ("ground_truth", 7.25, "one half")):
        results["summary"][video_set]["distances"] = {
            "fvd_a": {"label": "FVD VideoGPT", "value": value, "notes": ["few clips"], "compared": compared, **common},
            "fvd_b": {"label": "FVD StyleGAN-V", "value": None, "notes": [], **common},
        }
    layout, *rest = sections(results)
    mean = {row[0]: dict(zip(layout.header, row, strict=True)) for row in layout.rows if row[4] == "mean"}
    assert mean["generated"]["FVD VideoGPT"] == "91.500"
    assert mean["generated"]["FVD StyleGAN"] == "-"
    assert mean["ground truth (estimator's own error)"]["FVD VideoGPT"] == "7.250 (between halves)"
    [distances] = [each for each in rest if each.title == "Distances between sets of videos"]
    settings = "frames=16, resize=224x224 squashed"
    assert next(row for row in distances.rows if row[0] == "generated")[1:] == [
        "FVD VideoGPT", "91.500", "12", f"compared=with the true videos, {settings}",
    ]  # fmt: skip
    assert "FVD VideoGPT, generated: few clips" in distances.text


def test_every_clip_has_a_page_that_needs_no_other_file(reported: EvaluationFolder) -> None:
    summary = (reported.root / "report.html").read_text()
    for clip in CLIPS:
        assert f'href="report/{clip}.html"' in summary
        text = page(reported, clip)
        assert not re.search(r'(src|href)="(?!\.\./report\.html|clip-\d\d\.html)[^"]', text)
    content = data(page(reported, "clip-00"))
    for video_set in ("ground_truth", "generated"):
        stored = reported.video(video_set, "clip-00").read_bytes()
        assert base64.b64decode(content["videos"][video_set]) == stored
    assert content["fps"]["generated"] == 8
    assert len(content["paths"]) == 4, "two trials of two sets"
    np.testing.assert_allclose(content["paths"][0]["centres"], content["scene"]["centres"], atol=1e-6)
    assert page(reported, "clip-00").count("<polyline") == 4, "rotation and translation error of two sets"


def test_what_is_missing_is_said(reported: EvaluationFolder) -> None:
    assert "not a readable video" in page(reported, "clip-05")
    assert "no video" in page(reported, "clip-06")
    assert "generated" not in data(page(reported, "clip-06"))["videos"]
    assert "no model" in page(reported, "clip-03")
    assert page(reported, "clip-03").count("<polyline") == 2


def test_a_dead_camera_cannot_be_overlooked(tmp_path: Path) -> None:
    folder = write_measured(tmp_path, {"clip": [1.0]})
    effect = CameraEffect(changes={"right": 0.0, "stationary": 0.0, "shuffled": 0.0}, precision=1e-6)
    folder.record_camera_effect(measured(effect, clip_id="clip", shuffled_with=None))
    report(folder, [POSES])
    assert '<p class="alarm">Camera effect: THE CAMERA CHANGES NOTHING' in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "report").exists()


def test_markup_in_names_stays_text(tmp_path: Path) -> None:
    name = '<img src=x onerror="alert(1)">&"\''
    report(write_measured(tmp_path, {name: [1.0, None]}), [POSES], PAGES)
    for path in (tmp_path / "report.html", tmp_path / "report" / f"{name}.html"):
        assert "<img" not in path.read_text()


def test_a_curve_breaks_where_there_is_no_number() -> None:
    plot = curve_plot("error", {"a": [0.0, 1.0, float("nan"), 2.0, 4.0]}, {"a": "#000"})
    assert plot.count("<polyline") == 2
    assert "52.0,164.0" in plot, "zero is at the bottom left"
    assert "370.0,10.0" in plot, "the largest is at the top right"
