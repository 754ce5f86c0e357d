"""The demo, from rendered rooms to the report, on a smaller world and for a few steps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cami2v.training.run_folder import RunFolder
from launch.demo import Demo, DemoFailedError

SMALL_WORLD = [
    "world=demo", "world.sources.train=2", "world.sources.test=2", "world.clips_per_source=2", "world.width=320",
    "world.height=180",
]  # fmt: skip


@pytest.mark.slow
def test_demo_is_killed_resumed_and_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    Demo(folder, steps=24, world=SMALL_WORLD).run()
    printed = capfd.readouterr().out
    assert printed.splitlines()[-1] == str(folder / "report.html")
    killed_at = int(re.findall(r"killed after step (\d+)", printed)[0])
    run = RunFolder(folder / "train")
    steps = [row["step"] for row in map(json.loads, run.metrics.read_text().splitlines()) if "loss" in row]
    assert steps == list(range(1, 25))
    page = (folder / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 4 * 4 + 1
    for caption in ("right trajectory", "stationary trajectory", "another clip&#x27;s trajectory", "kill -9"):
        assert caption in page
    assert f"kill -9 hit the run after step {killed_at}" in page
    resumed_from = int(re.findall(r"resumed from the checkpoint of step (\d+)", page)[0])
    discarded = run.path / "metrics.discarded.jsonl"
    lines = discarded.read_text().splitlines() if discarded.exists() else []
    # What had been logged after that checkpoint was done again.
    assert [json.loads(line)["step"] for line in lines] == list(range(resumed_from + 1, killed_at + 1))


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoFailedError, match="not empty and no earlier demo"):
        Demo(tmp_path).run()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
