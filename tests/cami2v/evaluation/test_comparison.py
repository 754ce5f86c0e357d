"""Paired differences: what is better, by how much, and what must not be compared at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from cami2v.evaluation.comparison import Difference, Evaluation, differences, open_evaluations, what_differs
from cami2v.evaluation.comparison_report import compare, write_comparison
from cami2v.evaluation.report import report
from tests.cami2v.evaluation.reported import BOOTSTRAP, OPTIONS, POSES, write_measured

Errors = Mapping[str, Sequence[float | None]]
CLIPS = [f"clip-{number:02d}" for number in range(20)]
HARDNESS = np.random.default_rng(0).gamma(4.0, size=20)
"""Some clips are harder than others for everybody: what pairing takes out."""


def evaluations(
    folder: Path, ours: Errors, theirs: Errors, *, identity: dict[str, object] | None = None, speed: float = 1.0
) -> tuple[Evaluation, Evaluation]:
    """Report two; `identity` and `speed` are the second one's."""
    report(write_measured(folder / "first" / "evaluation" / "test", ours), [POSES], OPTIONS)
    second = folder / "second" / "evaluation" / "test"
    report(write_measured(second, theirs, identity=identity, speed=speed), [POSES], OPTIONS)
    first, other = open_evaluations([folder / "first", folder / "second"])
    return first, other


def errors(change: float, noise: float = 0.05) -> dict[str, list[float | None]]:
    noises = np.random.default_rng(round(1000 * abs(change)) + 1).normal(scale=noise, size=20)
    return {clip: [float(hard + change + each)] for clip, hard, each in zip(CLIPS, HARDNESS, noises, strict=True)}


def rotation(found: list[Difference]) -> list[Difference]:
    return [each for each in found if each.figure == "RotErr_sum_rad"]


def test_a_small_gain_is_seen_through_the_hardness_of_clips(tmp_path: Path) -> None:
    pair = evaluations(tmp_path, errors(0.0), errors(-0.3))
    [difference] = rotation(differences(*pair, BOOTSTRAP))
    assert (difference.over, difference.pairs, difference.better) == ("clips that neither failed", 20, "second")
    assert difference.mean == pytest.approx(difference.second_mean - difference.first_mean)
    assert difference.mean_interval is not None
    assert difference.mean_interval[0] < -0.3 < difference.mean_interval[1] < -0.2
    # Without pairs nothing could be said: the clips of one evaluation are spread far wider than the gain.
    summaries = [each.results["summary"]["generated"]["figures"]["RotErr_sum_rad"] for each in pair]
    assert summaries[1]["mean_interval"][1] > summaries[0]["mean_interval"][0] + 0.3
    [back] = rotation(differences(pair[1], pair[0], BOOTSTRAP))
    assert back.better == "first"
    assert back.mean == -difference.mean


def test_noise_is_not_called_better(tmp_path: Path) -> None:
    [difference] = rotation(differences(*evaluations(tmp_path, errors(0.0, 1.0), errors(0.001, 1.0)), BOOTSTRAP))
    assert difference.better == "not told apart"


def test_the_same_numbers_are_equal_and_few_clips_say_nothing(tmp_path: Path) -> None:
    [same] = rotation(differences(*evaluations(tmp_path / "same", errors(0.0), errors(0.0)), BOOTSTRAP))
    assert (same.better, same.mean, same.mean_interval) == ("equal", 0.0, (0.0, 0.0))
    few = [{clip: values for clip, values in errors(change).items() if clip < "clip-05"} for change in (0.0, -3.0)]
    [difference] = rotation(differences(*evaluations(tmp_path / "few", *few), BOOTSTRAP))
    assert (difference.pairs, difference.mean_interval, difference.better) == (5, None, "too few clips")


def test_failing_on_hard_clips_does_not_win(tmp_path: Path) -> None:
    second = errors(-0.3)
    for clip in CLIPS[:4]:
        second[clip] = [None]
    neither, all_clips = rotation(differences(*evaluations(tmp_path, errors(0.0), second), BOOTSTRAP))
    assert (neither.pairs, neither.better) == (16, "second")
    assert (all_clips.pairs, all_clips.failed_first, all_clips.failed_second) == (20, 0, 4)
    assert all_clips.mean > 0
    assert all_clips.better != "second"
    # Each failed clip counts as a motionless camera (9), or as the worst clip of both, if that is worse.
    worst = max(9.0, *(value for table in (errors(0.0), second) for [value] in table.values() if value is not None))
    counted = [worst if value is None else value for [value] in second.values()]
    assert all_clips.second_mean == pytest.approx(np.mean(counted))


def test_other_clips_settings_and_cameras_are_refused_by_name(tmp_path: Path) -> None:
    identity: dict[str, object] = {"manifest_sha256": "b" * 64, "seed": 1, "checkpoint": None}
    pair = evaluations(tmp_path / "manifest", errors(0.0), errors(-0.3), identity=identity)
    with pytest.raises(ValueError, match=r"first and second were not evaluated alike: manifest_sha256 \(aaaa") as error:
        compare(pair, BOOTSTRAP, allow_different=False)
    assert "\n" not in str(error.value)
    assert "seed" not in str(error.value).partition(";")[0]
    text = write_comparison(tmp_path / "out", compare(pair, BOOTSTRAP, allow_different=True))
    assert "## NOT EVALUATED ALIKE: second minus first" in text
    assert "manifest_sha256 (aaaa" in text
    made: dict[str, object] = {
        "manifest_sha256": "a" * 64,
        "videos": {"generated": "x"},
        "framing": "crop",
        "checkpoint": None,
    }
    pair = evaluations(tmp_path / "made", errors(0.0), errors(0.0), identity=made)
    assert what_differs(*pair) == [], "of a model and of a folder, by one manifest"
    fewer = {clip: values for clip, values in errors(0.0).items() if clip != "clip-03"}
    pair = evaluations(tmp_path / "clips", errors(0.0), fewer)
    assert what_differs(*pair) == ["clips (1 only in first, 0 only in second)"]
    pair = evaluations(tmp_path / "cameras", errors(0.0), errors(0.0), speed=2.0)
    assert what_differs(*pair) == ["requested cameras of 20 clips (first clip-00)"]
    pair = evaluations(tmp_path / "measures", errors(0.0), errors(0.0))
    pair[1].results["measures"]["poses"]["trials"] = 5
    assert what_differs(*pair) == ["poses.trials (2 and 5)"]


def test_distances_stand_side_by_side_with_their_settings(tmp_path: Path) -> None:
    pair = evaluations(tmp_path, errors(0.0), errors(-0.3))
    for each, value in zip(pair, (91.5, 84.25), strict=True):
        fvd = {"label": "FVD VideoGPT", "value": value, "clips": 20, "notes": [], "resize": "224x224 squashed"}
        each.results["summary"]["generated"]["distances"]["fvd"] = fvd
    comparison = compare(pair, BOOTSTRAP, allow_different=False)
    text = write_comparison(tmp_path / "out", comparison)
    assert "| generated | FVD VideoGPT | 91.500 (20 clips) | 84.250 (20 clips) | resize=224x224 squashed |" in text
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == json.loads(json.dumps(comparison))
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "second better" in page
    assert "91.500 (20 clips)" in page


def test_what_is_not_compared_is_noted(tmp_path: Path) -> None:
    pair = evaluations(tmp_path, errors(0.0), errors(-0.3))
    pair[1].results["versions"]["pycolmap"] = "0.1"
    pair[0].results["summary"]["generated_shuffled"] = pair[0].results["summary"]["generated"]
    text = write_comparison(tmp_path / "out", compare(pair, BOOTSTRAP, allow_different=False))
    assert "- Note: made with different versions of pycolmap: " in text
    assert "- Note: only in first, not compared: generated shuffled." in text


def test_three_are_compared_with_the_first(tmp_path: Path) -> None:
    pair = evaluations(tmp_path, errors(0.0), errors(-0.3))
    third = write_measured(tmp_path / "third", errors(0.3))
    report(third, [POSES], OPTIONS)
    opened = open_evaluations([*(each.folder.root for each in pair), tmp_path / "third"])
    comparison = compare(opened, BOOTSTRAP, allow_different=False)
    assert [(each["first"], each["second"]) for each in comparison["comparisons"]] == [
        ("first/evaluation/test", "second/evaluation/test"),
        ("first/evaluation/test", "third"),
    ]


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither an evaluation folder"):
        open_evaluations([tmp_path, tmp_path / "other"])
    pair = evaluations(tmp_path, errors(0.0), errors(-0.3))
    with pytest.raises(ValueError, match="the same evaluation twice"):
        open_evaluations([tmp_path / "first", pair[0].folder.root])
    with pytest.raises(ValueError, match="two or more are compared"):
        open_evaluations([tmp_path / "first"])
    report(write_measured(tmp_path / "first" / "evaluation" / "train", errors(0.0)), [POSES], OPTIONS)
    with pytest.raises(ValueError, match="has several evaluations"):
        open_evaluations([tmp_path / "first", tmp_path / "second"])
