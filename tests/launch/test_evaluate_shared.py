"""One evaluation by one process, by ranks, by tasks, and killed: the same bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cami2v.evaluation.folder import EvaluationFolder
from launch.compose import compose_config
from launch.evaluate import run, share_of_process
from launch.pack import run as pack
from tests.launch.untrained import random_run

CLIPS = 3
MEASURE = "tests.launch.brightness.Brightness"
SETS = ["ground_truth", "generated", "generated_shuffled", "generated_stationary"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What evaluates a model of random weights on packed clips."""
    folder = tmp_path_factory.mktemp("shared")
    world = {
        "rooms": 1, "sources": f"{{test: {CLIPS}}}", "clips_per_source": 1, "frames_per_clip": 4, "lead_frames": 0,
        "width": 64, "height": 36, "path_kinds": ["orbit"],
    }  # fmt: skip
    overrides = ["~world.sources", *(f"++world.{name}={value}" for name, value in world.items())]
    places = [f"output={folder / 'shards'}", f"raw={folder / 'raw'}", "pack.min_frames=4", "pack.processes=1"]
    pack(compose_config("pack", [*overrides, *places]))
    data = [f"data.shards={folder / 'shards'}", "data.split=test"]
    model = ["data.frames=4", "data.resolution=[64,64]", "data.frame_stride=1", "sampler.steps=1"]
    checkpoint = random_run(folder / "run", [*data, *model])
    measures = ["~evaluation.measures", f"+evaluation.measures={{brightness: {{_target_: {MEASURE}}}}}"]
    return [*data, f"checkpoint={checkpoint}", *measures, "evaluation.interventions=true"]


@pytest.fixture(scope="module")
def undisturbed(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "evaluation"
    evaluate(settings, output)
    assert EvaluationFolder(output).video_sets() == SETS
    return output


def evaluate(settings: Sequence[str], output: Path, *overrides: str) -> None:
    run(compose_config("evaluate", [*settings, f"output={output}", *overrides]))


def same(output: Path, expected: Path) -> None:
    written = {path.relative_to(expected) for path in expected.rglob("*") if path.is_file()}
    assert len([path for path in written if path.suffix == ".mp4"]) == CLIPS * len(SETS)
    for path in sorted(written):
        assert (output / path).read_bytes() == (expected / path).read_bytes(), path


def test_ranks_and_tasks_in_any_order(
    settings: list[str],
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Two tasks of two ranks each: four shares of three clips, the last of them empty and first to be done.
    monkeypatch.setenv("WORLD_SIZE", "2")
    for task, rank in ((1, 1), (1, 0), (0, 0), (0, 1)):
        assert not (tmp_path / "results.json").exists()
        monkeypatch.setenv("RANK", str(rank))
        evaluate(settings, tmp_path, f"evaluation.task={task}", "evaluation.tasks=2", "data.num_workers=1")
    said = capsys.readouterr().out
    assert "share 3 of 4 is done" in said
    assert said.splitlines()[-1] == str(tmp_path / "report.md")
    same(tmp_path, undisturbed)


def test_killed_in_two_stages(settings: list[str], undisturbed: Path, tmp_path: Path) -> None:
    overrides = [*settings, f"output={tmp_path}"]
    subprocess.run([sys.executable, "-m", "tests.launch.killed_evaluation", *overrides], check=True, timeout=600)
    assert not (tmp_path / "results.json").exists()
    evaluate(settings, tmp_path)
    same(tmp_path, undisturbed)


def test_a_rank_takes_its_part_of_its_tasks_share() -> None:
    seen = [
        share_of_process(None, 4, {"SLURM_ARRAY_TASK_ID": str(task), "RANK": str(rank), "WORLD_SIZE": "2"})
        for task in range(4)
        for rank in range(2)
    ]
    assert [share.task for share in seen] == list(range(8))
    assert {share.tasks for share in seen} == {8}
    assert sorted(clip for share in seen for clip in share.of(range(21))) == list(range(21))
    with pytest.raises(ValueError, match=r"evaluation\.task=4: must be from 0 to 3"):
        share_of_process(4, 4, {})
