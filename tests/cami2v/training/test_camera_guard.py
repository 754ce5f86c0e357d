"""The camera guard in training: when it judges, that it stops every process, and that it changes no number."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cami2v.camera_control.liveness import GuardSettings
from cami2v.training.callbacks.base import Callback, TrainingStoppedError
from cami2v.training.callbacks.guards import CameraAliveGuard
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.state import StepReport
from tests.cami2v.training.guarded import Clips, model, stored_clips, train_guarded
from tests.cami2v.training.toys import LOGGING, train
from tests.warm_processes import run_module

EFFECTS = ("camera_effect_stationary", "camera_effect_shuffled")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder) if "loss" in row]


def effects(folder: Path) -> list[tuple[int, float, float]]:
    return [(row["step"], *(row[name] for name in EFFECTS)) for row in rows(folder) if EFFECTS[0] in row]


def assert_same_bits(left: Path, right: Path, step: int) -> None:
    assert losses(left) == losses(right)
    name = f"checkpoints/step-{step:08d}/trainable.safetensors"
    ours, theirs = load_file(left / name), load_file(right / name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def launch(cases: list[dict[str, Any]]) -> None:
    done = run_module("tests.cami2v.training.guarded", [json.dumps(cases)], processes=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Watched, unwatched, dead and resumed runs of two processes, in one launch; ZeRO-3 last (see test_engines)."""
    folder = tmp_path_factory.mktemp("guarded")
    launch(
        [
            {"folder": str(folder / "ddp-watched"), "kind": "ddp"},
            {"folder": str(folder / "ddp-dead"), "kind": "ddp", "pretrained": False},
            {"folder": str(folder / "zero3-watched"), "kind": "zero3"},
            {"folder": str(folder / "zero3-unwatched"), "kind": "zero3", "guard": None},
            {"folder": str(folder / "zero3-resumed"), "kind": "zero3", "max_steps": 2},
            {"folder": str(folder / "zero3-resumed"), "kind": "zero3", "resume": "auto"},
            {"folder": str(folder / "zero3-dead"), "kind": "zero3", "pretrained": False},
        ]
    )
    return folder


@pytest.mark.slow
def test_watching_changes_no_bit_of_training(two_processes: Path) -> None:
    assert len(losses(two_processes / "zero3-watched")) == 3
    assert_same_bits(two_processes / "zero3-watched", two_processes / "zero3-unwatched", step=3)


@pytest.mark.slow
def test_steps_and_resume_equal_the_whole_bit_for_bit(two_processes: Path) -> None:
    """The first two learning rates are those of the warm-up, whatever the run's length."""
    assert_same_bits(two_processes / "zero3-watched", two_processes / "zero3-resumed", step=3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "zero3"])
def test_the_effect_is_judged_and_logged_when_it_is_due(two_processes: Path, kind: str) -> None:
    ((step, stationary, shuffled),) = effects(two_processes / f"{kind}-watched")
    assert step == 2
    assert min(stationary, shuffled) > 1e-5


@pytest.mark.slow
def test_a_resumed_run_is_judged_at_once(two_processes: Path) -> None:
    assert [step for step, *_ in effects(two_processes / "zero3-resumed")] == [2, 3]


@pytest.mark.slow
def test_engines_measure_the_same(two_processes: Path) -> None:
    (ddp,), (zero3,) = effects(two_processes / "ddp-watched"), effects(two_processes / "zero3-watched")
    assert zero3 == pytest.approx(ddp, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "zero3"])
def test_a_dead_camera_stops_every_process_before_the_step_is_saved(two_processes: Path, kind: str) -> None:
    folder = two_processes / f"{kind}-dead"
    messages = {(folder / f"stopped-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(messages) == 1
    assert messages.pop().startswith("step 2: THE CAMERA CHANGES NOTHING after 2 updates: relative change of the")


@pytest.mark.usefixtures("one_process")
class TestInThisProcess:
    """What needs no second process."""

    def test_before_its_time_a_dead_camera_is_only_reported(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            train_guarded(tmp_path, "single", pretrained=False, judged_at=50)
        said = [record for record in caplog.records if "changes nothing yet" in record.message]
        assert [record.levelno for record in said] == [logging.INFO] * 2 + [logging.WARNING]
        assert "judged after 50 updates" in said[-1].message
        assert effects(tmp_path) == []

    def test_a_warning_goes_on(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        train_guarded(tmp_path, "single", guard="warn", pretrained=False)
        assert "step 2: THE CAMERA CHANGES NOTHING" in caplog.text
        assert "gradient norm of what it trains: 0;" in caplog.text
        assert len(losses(tmp_path)) == 3
        assert effects(tmp_path)[0] == (2, 0.0, 0.0)

    def test_a_camera_that_moves_is_found_alive_at_the_first_checkpoint(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            train_guarded(tmp_path, "single", judged_at=50)
        said = [record.message for record in caplog.records if record.name.endswith("callbacks.guards")]
        assert len(said) == 1
        assert said[0].startswith("step 1: the camera is alive")

    def test_skipped_updates_are_no_updates(self, tmp_path: Path) -> None:
        """An fp16 overflow leaves the weights where they were, so it must not bring the verdict closer."""
        guard = CameraAliveGuard(
            clips=stored_clips()[:1], guards=GuardSettings(camera_alive="error", camera_alive_step=2),
            validate_every_steps=0, checkpoint_every_steps=100,
            log=MetricsLog(every_steps=1, settings=LOGGING, config={}),
        )  # fmt: skip
        seen: list[int] = []

        class Overflowing(Callback):
            def on_fit_start(self, run: Any) -> None:
                guard.on_fit_start(run)

            def on_step_end(self, run: Any, report: StepReport) -> None:
                values = {name: getattr(report, name) for name in StepReport.__slots__}
                try:
                    guard.on_step_end(run, StepReport(**values | {"skipped": report.step <= 3}))
                except TrainingStoppedError:
                    seen.append(report.step)
                    raise

        with pytest.raises(TrainingStoppedError, match="after 2 updates"):
            train(
                tmp_path, "single", model=model(pretrained=False), stream=Clips(), max_steps=9,
                global_batch_size=1, checkpoint_every_steps=100, callbacks=(Overflowing(),),
            )  # fmt: skip
        assert seen == [5]
