"""One evaluation by one process, by ranks, by tasks, and killed: the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cami2v.evaluation.folder import EvaluationFolder
from launch.compose import compose_config
from launch.evaluate import run, share_of_process
from launch.pack import run as pack
from tests.launch.untrained import random_run
from tests.warm_processes import run_module

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
        if path.parts[0] == "measurements":
            assert without_seconds(output / path) == without_seconds(expected / path)
        else:
            assert (output / path).read_bytes() == (expected / path).read_bytes(), path


def without_seconds(row: Path) -> dict[str, Any]:
    """Read a measurement without what it cost, which is no result."""
    content: dict[str, Any] = json.loads(row.read_text())
    assert content.pop("seconds")["total"] >= 0
    return content


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
    killed = run_module("tests.launch.killed_evaluation", overrides)
    assert killed.returncode == 0, killed.stderr
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


def test_a_manifest_asks_for_the_same_clips_again(undisturbed: Path, settings: list[str], tmp_path: Path) -> None:
    here = [item for item in settings if not item.startswith(("checkpoint", "evaluation.interventions"))]
    given = json.loads((undisturbed / "manifest.json").read_text())
    given["clips"] = given["clips"][1:]
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(given))
    size = ["data.resolution=[64,64]"]
    evaluate(here, tmp_path / "out", *size, f"evaluation.manifest={chosen}")
    ids = [clip["clip_id"] for clip in given["clips"]]
    truth = EvaluationFolder(tmp_path / "out")
    assert truth.clip_ids() == ids
    for clip_id in ids:
        expected = EvaluationFolder(undisturbed).video("ground_truth", clip_id)
        assert truth.video("ground_truth", clip_id).read_bytes() == expected.read_bytes()
    identity = truth.identity()
    assert identity["manifest_sha256"] != EvaluationFolder(undisturbed).identity()["manifest_sha256"]
    assert (identity["frames"], identity["clips"], identity["seed"]) == (4, 2, "manifest")
    again = tmp_path / "out" / "manifest.json"
    evaluate(here, tmp_path / "again", *size, f"evaluation.manifest={again}", "evaluation.stages=[generate]")
    assert EvaluationFolder(tmp_path / "again").identity() == identity


@pytest.mark.parametrize(
    ("change", "override", "message"),
    [
        ({"clip_id": "elsewhere"}, "", "1 of its clips are not in"),
        ({"frame_indices": [0, 1, 2, 4]}, "", "frame 4 is asked for"),
        ({"frame_indices": [3, 2, 1, 0]}, "", "the poses of its frames in"),
        ({"caption_sha256": "0" * 64}, "", "none of its 1 captions in"),
        ({"frame_stride": 0}, "", "frame_stride is impossible"),
        ({"frames": 3}, "", "not an evaluation manifest (TypeError"),
        ({}, "data.frames=3", "clips of 4 frames, but data.frames=3"),
        ({}, "data.frame_stride=2", "data.frame_stride=2: evaluation.manifest="),
        ({}, "evaluation.clips=1", "evaluation.clips=1: evaluation.manifest="),
    ],
)
def test_data_that_no_longer_match_a_manifest_are_refused(
    undisturbed: Path, settings: list[str], tmp_path: Path, change: dict[str, Any], override: str, message: str
) -> None:
    here = [item for item in settings if not item.startswith(("checkpoint", "evaluation.interventions"))]
    given = json.loads((undisturbed / "manifest.json").read_text())
    given["clips"][-1] |= change
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(given))
    overrides = ["data.resolution=[64,64]", f"evaluation.manifest={chosen}", *([override] if override else [])]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        evaluate(here, tmp_path / "out", *overrides)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_published_metadata_names_clips_and_captions(undisturbed: Path, settings: list[str], tmp_path: Path) -> None:
    here = [item for item in settings if not item.startswith(("checkpoint", "evaluation.interventions"))]
    here += ["data.resolution=[64,64]", "data.frames=4", "evaluation.stages=[generate]"]
    ours = json.loads((undisturbed / "manifest.json").read_text())["clips"]
    chosen = tmp_path / "test_metadata.pth"
    torch.save([{"video_path": f"clips/{clip['clip_id']}.mp4", "poses": torch.eye(4)} for clip in ours[:2]], chosen)
    with pytest.raises(ValueError, match="says no frames; evaluate the shards by it"):
        evaluate(here, tmp_path / "made", f"evaluation.manifest={chosen}", "videos=.", "cameras=.")
    evaluate(here, tmp_path / "out", f"evaluation.manifest={chosen}")
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())["clips"]
    assert [{**clip, "seed": 0} for clip in written] == [{**clip, "seed": 0} for clip in ours[:2]]
    torch.save({"data": [{"name": ours[0]["clip_id"], "caption": "another caption"}]}, chosen)
    with pytest.raises(ValueError, match="none of its 1 captions in .* is the manifest's"):
        evaluate(here, tmp_path / "caption", f"evaluation.manifest={chosen}")
    torch.save({"elsewhere": {"caption": "a room"}}, chosen)
    with pytest.raises(ValueError, match=r"1 of its 1 clips are not in .* \(first elsewhere\)"):
        evaluate(here, tmp_path / "missing", f"evaluation.manifest={chosen}")
