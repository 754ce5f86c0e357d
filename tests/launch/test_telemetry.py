"""Everything a run can tell, on real shards with the real tiny model; telling it changes nothing."""

import json
import math
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launch.compose import compose_config
from launch.config_diff import config_changes
from launch.train import train
from launch.training_plan import prepare
from tests.cami2v.training.conftest import one_process
from tests.cami2v.training.toys import forget_engine
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly

__all__ = ["one_process"]

SETTINGS = [
    "data.num_workers=0", "data.frames=4", "data.resolution=[64,64]", "data.frame_stride=1",
    "trainer.trainable=all", "trainer.max_steps=4", "trainer.global_batch_size=2", "trainer.checkpoint_every_steps=2",
    "trainer.validate_every_steps=0", "logging=off", "guards.camera_alive=warn", "name=run",
]  # fmt: skip
EVERYTHING = [
    "logging.wandb=offline", "logging.gradient_norms_every_steps=2", "logging.count_flops=true",
    "logging.peak_tflops=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return pack_quietly(clips_folder(folder / "raw", 3, splits=["train"] * 2 + ["test"]), folder / "shards").folder


def run(runs: Path, shards: Path, *overrides: str) -> Path:
    config = compose_config("train", [f"data={shards}", f"paths.runs={runs}", *SETTINGS, *overrides])
    forget_engine()
    train(config, prepare(config))
    return runs / "run"


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
def test_a_run_tells_what_it_is_asked_over_a_restart_and_trains_the_same(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="an optional package, in the dev extra")
    monkeypatch.setenv("WANDB_SILENT", "true")
    everything = [*EVERYTHING, "logging.tensorboard=true"]
    told = run(tmp_path / "told", shards, *everything, "trainer.max_steps=2")
    told = run(tmp_path / "told", shards, *everything, "resume=auto")
    silent = run(tmp_path / "silent", shards, "logging.timestep_buckets=0")

    assert [row["loss"] for row in rows(told)] == [row["loss"] for row in rows(silent)]
    ours, theirs = (load_file(folder / "checkpoints/step-00000004/trainable.safetensors") for folder in (told, silent))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    assert [row["step"] for row in rows(told)] == [1, 2, 3, 4]
    for row in rows(told):
        assert any(key.startswith("loss_by_timestep/") for key in row)
        assert row["tflops_per_second"] > 0
        assert row["mfu"] == pytest.approx(row["tflops_per_second"] / 2)
        norms = {key: value for key, value in row.items() if key.startswith("gradient_norm/")}
        assert bool(norms) == (row["step"] % 2 == 0)
        if norms:
            assert {"gradient_norm/camera", "gradient_norm/image_projector"} < norms.keys()
            assert math.hypot(*norms.values()) == pytest.approx(row["gradient_norm"], rel=1e-5)

    starts = json.loads((told / "system.json").read_text())
    assert [start["step"] for start in starts] == [0, 2]
    assert starts[0]["packages"]["torch"] == metadata.version("torch")
    assert len(starts[0]["processes"]) == 1
    changes = json.loads((told / "config_changes.json").read_text())
    assert changes["changes"]["trainer.global_batch_size"] == {"experiment": 8, "run": 2}
    assert "data.scale_policy" not in changes["changes"]
    assert event_steps(told / "tensorboard") == [1, 2, 3, 4]


def event_steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [event.step for event in events.Scalars("loss")]


def test_the_difference_from_an_experiment_is_what_the_user_changed(shards: Path) -> None:
    given = [f"data.shards={shards}", "experiment=demo"]
    assert config_changes(compose_config("train", [*given, "name=mine"]), "demo").changes == {}
    changes = config_changes(compose_config("train", [*given, "trainer.max_steps=20"]), "demo")
    assert changes.changes == {"trainer.max_steps": (700, 20)}
    assert changes.text() == "differs from experiment=demo: trainer.max_steps 700 -> 20"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["logging.timestep_buckets=-1"], "logging.timestep_buckets: got -1"),
        (["logging.peak_tflops=0"], "logging.peak_tflops: got 0"),
        (["camera_error=default"], "camera_error.every_validations=1: there are no validations"),
        (
            ["logging.gradient_norms_every_steps=3", "trainer.log_every_steps=2"],
            "expected a multiple of trainer.log",
        ),
    ],
)
def test_wrong_settings_name_their_key(tmp_path: Path, shards: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(compose_config("train", [f"data={shards}", f"paths.runs={tmp_path}", *SETTINGS, *overrides]))


def test_tensorboard_that_is_missing_is_one_line(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cami2v.training.tensorboard.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"logging.tensorboard=true: the package tensorboard is not installed; pip"):
        prepare(compose_config("train", [f"data={shards}", *SETTINGS, "logging.tensorboard=true"]))
