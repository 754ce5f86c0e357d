"""`cami2v train` as users start it: real shards, the real tiny model, real processes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cami2v.training.engine import EngineSettings, prepare_model
from cami2v.training.run_lock import LOCK, hold
from cami2v.video import read_frames
from launch.compose import compose_config, settings
from launch.training_plan import prepare
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.warm_processes import plain_environment, run_module

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "data.num_workers=0", "data.frames=4", "data.resolution=[64,64]", "data.frame_stride=1",
    "trainer.trainable=all", "trainer.max_steps=2", "trainer.global_batch_size=2", "trainer.checkpoint_every_steps=1",
    "trainer.validation_clips=1", "trainer.validate_every_steps=2", "sampler.steps=2", "logging=off",
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    splits = ["train"] * 4 + ["test"] * 2
    source = clips_folder(folder / "raw", splits=splits)
    return pack_quietly(source, folder / "shards").folder


def arguments(runs: Path, shards: Path, *overrides: str) -> list[str]:
    return [f"data={shards}", f"paths.runs={runs}", *SETTINGS, *overrides]


def train(runs: Path, shards: Path, *overrides: str, processes: int = 1) -> subprocess.CompletedProcess:
    """Train in a process of its own, or in several as under torchrun."""
    return run_module("launch.train", arguments(runs, shards, *overrides), processes=processes)


def train_as_typed(runs: Path, shards: Path, *overrides: str) -> subprocess.CompletedProcess:
    """Train by the command line; what importing says is seen, and several processes have their own launcher."""
    return subprocess.run(
        [sys.executable, "-m", "launch.train", *arguments(runs, shards, *overrides)], cwd=ROOT, capture_output=True,
        text=True, timeout=540, env=plain_environment(), check=False,
    )  # fmt: skip


def rows(run: Path, key: str) -> list[float]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in found if key in row]


@pytest.mark.slow
def test_two_processes_under_zero3_equal_one(tmp_path: Path, shards: Path) -> None:
    one = train(tmp_path, shards, "name=one")
    assert one.returncode == 0, one.stderr[-3000:]
    selective = "backbone.activation_checkpointing=selective"
    two = train(tmp_path, shards, "name=two", "engine=zero3", selective, processes=2)
    assert two.returncode == 0, two.stderr[-3000:]
    assert rows(tmp_path / "two", "loss") == pytest.approx(rows(tmp_path / "one", "loss"), rel=1e-5)
    assert rows(tmp_path / "two", "validation_loss")[-1] == pytest.approx(
        rows(tmp_path / "one", "validation_loss")[-1], rel=1e-4
    )
    names = [load_file(tmp_path / run / "checkpoints/step-00000002/trainable.safetensors") for run in ("one", "two")]
    assert {name: value.shape for name, value in names[0].items()} == {n: v.shape for n, v in names[1].items()}
    (video,) = (tmp_path / "two" / "samples" / "step-00000002").iterdir()
    assert read_frames(video).shape[0] == 4


@pytest.mark.slow
def test_resume_continues_in_place_and_names_what_changed(tmp_path: Path, shards: Path) -> None:
    first = train(tmp_path, shards, "name=run", "trainer.max_steps=1", "trainer.validate_every_steps=0")
    assert first.returncode == 0, first.stderr[-3000:]
    second = train(tmp_path, shards, f"resume={tmp_path / 'run'}", "trainer.validate_every_steps=0")
    assert second.returncode == 0, second.stderr[-3000:]
    assert "trainer.max_steps changes with this resume: 1 -> 2" in second.stderr
    assert rows(tmp_path / "run", "step") == [1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_second_submission_of_a_run_is_refused(tmp_path: Path, shards: Path) -> None:
    with hold(tmp_path / "run"):
        failed = train(tmp_path, shards, "name=run")
        assert [each.name for each in (tmp_path / "run").iterdir()] == [LOCK]
    assert failed.returncode == 2
    assert "trains in this folder" in failed.stderr


def test_what_a_user_got_wrong_is_one_line_and_leaves_no_trace(tmp_path: Path, shards: Path) -> None:
    failed = train_as_typed(tmp_path, shards, "cluster.processes=2")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: engine.kind: got single, but the run has 2 processes")
    assert len(failed.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["resume={runs}/nothing"], "resume: got {runs}/nothing, which does not exist"),
        (["cluster.processes=2", "engine=ddp", "data.num_workers=3"], "4 shards for 6 readers"),
        (["trainer.max_step=3"], "trainer.max_step=3: no such key; did you mean 'max_steps'?"),
        (["trainer.max_steps=many"], "trainer.max_steps: got 'many' (str), expected int"),
        (["optimizer.betas=[0.9]"], "optimizer.betas: got [0.9] (1 values), expected 2"),
        (["trainer.trainable=3"], "trainer.trainable: got 3 (int), expected"),
        (["sampler.steps=two"], "sampler.steps: got 'two' (str), expected int"),
        (["init_from={runs}/nothing"], "{runs}/nothing: does not exist"),
        (["trainer.validation_split=tset"], "has no such split (it has: test, train)"),
        (["data.shards={runs}"], "has no manifest.json"),
        (["engine=zero9"], "engine=zero9: no such preset"),
    ],
)
def test_a_config_is_checked_as_a_whole_before_anything_is_built(
    tmp_path: Path, shards: Path, overrides: list[str], message: str
) -> None:
    given = [f"data={shards}", f"paths.runs={tmp_path}", *SETTINGS, *(o.format(runs=tmp_path) for o in overrides)]
    with pytest.raises(ValueError, match=re.escape(message.format(runs=tmp_path))):
        prepare(compose_config("train", given))
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_would_happen_and_writes_nothing(tmp_path: Path, shards: Path) -> None:
    runs = tmp_path / "runs"
    told = train(runs, shards, "--dry-run", "engine=zero2", "cluster.processes=2", "trainer.keep_last_checkpoints=3")
    assert told.returncode == 0, told.stderr[-3000:]
    lines = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in told.stdout.splitlines()}
    assert lines["batch"] == "2 clips per optimizer step = 2 processes x 1 per forward pass x 1 accumulated"
    assert lines["engine"].startswith("zero2, fp32, gradients clipped at norm 0.5")
    assert "split train: 4 clips in" in lines["data"]
    assert "2 steps per epoch" in lines["data"]
    assert lines["disk"].startswith("4 checkpoints of about ")
    assert lines["dry"] == "run: nothing stands in the way; nothing was written"
    assert not runs.exists()


def test_a_dry_run_lists_its_problems(tmp_path: Path, shards: Path) -> None:
    told = train(tmp_path, shards, "--dry-run", f"trainer.keep_last_checkpoints={10**9}")
    assert told.returncode == 2
    assert "error: dry run: 1 problem: disk: 1000000001 checkpoints of " in told.stderr
    assert "lower trainer.keep_last_checkpoints=1000000000" in told.stderr


def test_a_compiled_denoiser_and_another_memory_layout_compute_the_same() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3)
    denoiser = nn.Sequential(convolution, nn.SiLU(), nn.Conv2d(8, 3, 3))
    model, images = nn.ModuleDict({"denoiser": denoiser}), torch.randn(2, 3, 9, 9)
    expected, names = denoiser(images), list(model.state_dict())
    engine = settings(
        # The backend `eager` traces the graph as inductor would, and spares the test minutes of C++.
        compose_config("train", ["engine.compile=eager", "engine.channels_last=true"]).engine, EngineSettings, "engine"
    )  # fmt: skip
    prepare_model(model, denoiser, engine)
    traced = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch.testing.assert_close(denoiser(images), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == traced + 1
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("engine.compile=inducto",), "engine.compile: got 'inducto', expected null or a backend of torch.compile: "),
        (("engine=zero3", "engine.compile=inductor"), "engine.compile: got inductor, but engine=zero3 gathers weights"),
        (("engine=zero1", "engine.channels_last=true"), "engine.channels_last: got true, but DeepSpeed (engine=zero1)"),
    ],
)
def test_layouts_that_an_engine_would_undo_are_refused(overrides: tuple[str, ...], message: str) -> None:
    engine = compose_config("train", overrides).engine
    with pytest.raises(ValueError, match=re.escape(message)):
        settings(engine, EngineSettings, "engine")
