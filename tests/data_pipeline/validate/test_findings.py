"""Every check has a rule, a place in the documentation and, where packing knows it, packing's name."""

from __future__ import annotations

import json
from pathlib import Path

from data_pipeline.bad_clips import Reason
from data_pipeline.validate.findings import RULES, Check, Observation, Place, Severity, finding
from data_pipeline.validate.report import Report

DOCS = Path(__file__).resolve().parents[3] / "docs" / "validate.md"


def test_every_check_has_a_rule_and_a_row_in_the_documentation() -> None:
    assert set(RULES) == set(Check)
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    documented = {row.split("`")[1]: row.split("|")[2].strip() for row in rows}
    assert documented == {check.value: rule.severity.value for check, rule in RULES.items()}


def test_what_packing_refuses_has_the_same_name_here() -> None:
    assert {reason.value for reason in Reason} <= {check.value for check in Check}


def report_with(*checks: Check) -> Report:
    place = Place(shard="train-000000.tar", clip="abc", split="train")
    findings = [finding(Observation(check, "seen", 3), place) for check in checks]
    return Report(source="set", kind="shard set", findings=findings)


def test_the_exit_code_follows_the_worst_finding() -> None:
    assert report_with().exit_code(strict=True) == 0
    assert report_with(Check.FRAME_RATE_OF_CUT_CLIP).exit_code(strict=True) == 0
    assert report_with(Check.STILL_CAMERA).exit_code(strict=False) == 0
    assert report_with(Check.STILL_CAMERA).exit_code(strict=True) == 1
    assert report_with(Check.STILL_CAMERA, Check.SOURCE_LEAK).exit_code(strict=False) == 1


def test_the_table_puts_errors_first_and_shows_a_few_places() -> None:
    lines = report_with(*[Check.STILL_CAMERA] * 7, Check.POSE_NOT_FINITE).lines()
    heads = [line for line in lines[1:-1] if not line.startswith(" ")]
    assert [head.split()[:2] for head in heads] == [["error", "pose_not_finite"], ["warning", "still_camera"]]
    assert lines.count("        train-000000.tar abc frame 3: seen") == 1 + 5
    assert "        ... and 2 more" in lines
    assert lines[-1] == "1 errors, 7 warnings, 0 notes"


def test_the_json_report_names_place_and_remedy_of_every_finding(tmp_path: Path) -> None:
    report_with(*[Check.STILL_CAMERA] * 7).write(tmp_path / "below" / "report.json")
    content = json.loads((tmp_path / "below" / "report.json").read_text())
    assert content["counts"] == {"error": 0, "warning": 7, "note": 0}
    assert len(content["findings"]) == 7
    assert content["findings"][0] == {
        "severity": Severity.WARNING,
        "check": "still_camera",
        "shard": "train-000000.tar",
        "clip": "abc",
        "frame": 3,
        "found": "seen",
        "allowed": RULES[Check.STILL_CAMERA].allowed,
        "remedy": RULES[Check.STILL_CAMERA].remedy,
    }
