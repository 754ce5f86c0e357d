import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb

from cami2v.training.callbacks.base import Callback, TrainingStoppedError
from cami2v.training.callbacks.guards import DeadGradientGuard
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.callbacks.validate import Validate, panels
from cami2v.video import read_frames
from tests.cami2v.training.offline_wandb import history
from tests.cami2v.training.toys import LOGGING, SIZE, ToyStream, forget_engine, toy_clip, train, trainer_settings

pytestmark = pytest.mark.usefixtures("one_process")


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_have_a_row_per_step_with_what_the_documentation_promises(tmp_path: Path) -> None:
    train(tmp_path, "single", max_steps=2)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]
    for row in rows(tmp_path):
        assert row["samples_per_second"] > 0
        assert 0 <= row["data_wait_share"] <= 1
        assert row["peak_memory_bytes"] > 2**20
        assert row["samples_seen"] == 4 * row["step"]
    assert {"loss", "learning_rate", "gradient_norm", "train_seconds", "unix_time"} <= rows(tmp_path)[0].keys()


def test_micro_batches_change_nothing_but_rounding(tmp_path: Path) -> None:
    losses = []
    for micro in (1, 2, 4):
        trainer = train(tmp_path / str(micro), "single", micro_batch_size=micro, dropout=0.0)
        assert trainer.accumulation_steps == 4 // micro
        losses.append([row["loss"] for row in rows(tmp_path / str(micro))])
        forget_engine()
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] == pytest.approx(losses[0], rel=1e-6)


def test_clipping_limits_the_gradient_of_the_update_and_reports_the_norm_before_it(tmp_path: Path) -> None:
    class NormAtUpdate(Callback):
        def on_fit_start(self, run) -> None:
            weights, update = list(run.engine.trainable.values()), run.engine._optimizer.step

            def measured_update() -> None:
                self.norm = float(torch.cat([weight.grad.flatten() for weight in weights]).norm())
                update()

            run.engine._optimizer.step = measured_update

    seen = NormAtUpdate()
    train(tmp_path, "single", gradient_clip_norm=0.01, max_steps=1, callbacks=(seen,))
    assert seen.norm == pytest.approx(0.01, rel=1e-4)
    assert rows(tmp_path)[0]["gradient_norm"] > 0.1


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError, match=r"step 4: loss nan.*clip0013.*step-00000003"):
        train(tmp_path, "single", stream=ToyStream(poison=13), checkpoint_every_steps=1)
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000003\n"
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]


def test_a_dead_gradient_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Silent(DeadGradientGuard):
        def on_fit_start(self, run) -> None:
            run.engine.model.out.register_forward_hook(lambda module, inputs, output: output * 0)

    with caplog.at_level(logging.WARNING):
        train(tmp_path, "single", callbacks=(Silent(),), max_steps=3)
    assert [record.message.count("exactly 0") for record in caplog.records] == [1]


def test_validation_writes_comparable_losses_and_videos_of_every_clip(tmp_path: Path) -> None:
    log = MetricsLog(every_steps=1, settings=LOGGING, config={})
    validate = Validate(clips=[toy_clip(100), toy_clip(101)], sampler="any", every_steps=1, log=log)
    train(tmp_path, "single", callbacks=(validate,), max_steps=2, checkpoint_every_steps=9)
    validated = [row for row in rows(tmp_path) if "validation_loss" in row]
    assert [row["step"] for row in validated] == [1, 2]
    assert validated[0]["validation_loss"] != validated[1]["validation_loss"]
    for clip in ("clip0100", "clip0101"):
        frames = read_frames(tmp_path / "samples" / "step-00000002" / f"{clip}.mp4")
        assert frames.shape[0] == 2
        assert frames.shape[2] > 2 * SIZE


def test_validation_does_not_change_training(tmp_path: Path) -> None:
    log = MetricsLog(every_steps=1, settings=LOGGING, config={})
    validate = Validate(clips=[toy_clip(100)], sampler="any", every_steps=1, log=log)
    train(tmp_path / "with", "single", callbacks=(validate,), max_steps=3)
    forget_engine()
    train(tmp_path / "without", "single", max_steps=3)
    losses = [[row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in ("with", "without")]
    assert losses[0] == losses[1]


def test_wandb_keeps_the_identity_of_the_run_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    offline = dataclasses.replace(LOGGING, wandb="offline")
    first = train(tmp_path, "single", max_steps=3, logging=offline)
    forget_engine()
    second = train(tmp_path, "single", max_steps=6, resume="auto", logging=offline)
    assert first.state.tracking_id == second.state.tracking_id
    wandb.teardown()  # files are complete once its service has ended
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [path.stem for path in files] == [f"run-{first.state.tracking_id}"] * 2
    logged = [[(row["step"], row["loss"]) for row in history(path)] for path in files]
    assert [[step for step, _ in each] for each in logged] == [[1, 2, 3], [4, 5, 6]]
    assert [loss for each in logged for _, loss in each] == [row["loss"] for row in rows(tmp_path)]


def test_panels_show_ground_truth_then_sample_then_path() -> None:
    clip = toy_clip(3)
    joined = panels(clip, torch.full_like(clip.video, -1.0))
    truth = ((clip.video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
    height = joined.shape[1]
    step = height // SIZE
    assert (joined[:, ::step, :height:step] == truth).all()
    assert joined.shape[2] > 2 * height


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "trainer.max_steps: got 0, expected at least 1"),
        ({"gradient_clip_norm": -1.0}, "trainer.gradient_clip_norm: got -1.0"),
        ({"validation_clips": -1}, "trainer.validation_clips: got -1"),
    ],
)
def test_settings_out_of_range_name_their_key(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_settings(**changes)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer.global_batch_size: got 4, expected a multiple of 3 \(3 processes"):
        trainer_settings().accumulation_steps(3)
