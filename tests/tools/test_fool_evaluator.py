"""Wrong videos are what they say, and only what the evaluator missed is told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cami2v.video import read_frames, write_mp4
from tools.fool_evaluator import ANOTHER, DAMAGED, damaged, make_sets, verdict


def test_sets(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    for number, name in enumerate(("a", "b", "c")):
        levels = np.arange(6, dtype=np.uint8) * 30 + 10 * number
        write_mp4(truth / f"{name}.mp4", np.tile(levels[:, None, None, None], (1, 16, 16, 3)), 8)
    for _ in range(2):
        sets = make_sets(truth, tmp_path / "made")

    def levels_of(video_set: str, name: str) -> list[float]:
        frames = read_frames(sets[video_set] / f"{name}.mp4")
        return np.round(frames.mean(axis=(1, 2, 3)) / 10).tolist()

    right = np.round(read_frames(truth / "a.mp4").mean(axis=(1, 2, 3)) / 10).tolist()
    assert levels_of("reversed", "a") == right[::-1]
    assert levels_of("frozen", "a") == right[:1] * 6
    assert sorted(levels_of("shuffled", "a")) == right != levels_of("shuffled", "a")
    assert (sets[ANOTHER] / "c.mp4").resolve() == (truth / "a.mp4").resolve()
    assert (sets[DAMAGED] / "b.mp4").resolve() == (truth / "b.mp4").resolve()
    assert (sets[DAMAGED] / "a.mp4").stat().st_size == 200
    assert (truth / "a.mp4").stat().st_size > 200, "the truth stays what it was"


def test_one_in_twenty_is_damaged() -> None:
    names = [f"{number:03d}" for number in range(100)]
    assert damaged(names) == {"000", "020", "040", "060", "080"}
    assert len(damaged(names[:21])) == 2
    assert len(damaged(names[:6])) == 1


def test_what_is_not_far_worse_has_fooled_the_evaluator() -> None:
    def summary(mean: float, failed: int = 0) -> dict[str, Any]:
        return {"clips": 6, "figures": {"CamMC_sum": {"penalised_mean": mean, "failed": failed}}}

    def clip(video_set: str, reason: str) -> dict[str, Any]:
        return {"video_set": video_set, "clip_id": "a", "failures": [{"reason": reason}]}

    results = {
        "figures": {"CamMC_sum": {"label": "CamMC", "unit": ""}},
        "summary": {
            "ground_truth": summary(0.5),
            "reversed": summary(5.0),
            "frozen": summary(1.0),
            DAMAGED: summary(0.9, 1),
        },
        "clips": [clip(DAMAGED, "unreadable video"), clip("ground_truth", "no model")],
    }
    lines, fooled = verdict(results, {"a"})
    assert fooled == ["frozen"]
    assert lines[-2:] == ["| frozen | 6 | 1 (0) x2.0 | NO |", "| one in twenty damaged | 6 | 0.9 (1) x1.8 | yes |"]
    assert verdict({**results, "clips": []}, {"a"})[1] == ["frozen", DAMAGED]
