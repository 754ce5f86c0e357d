import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cami2v.training.bad_steps import BadStepSettings
from cami2v.training.callbacks.base import TrainingStoppedError
from cami2v.training.engine import Precision
from cami2v.training.fault_record import read_share
from launch.local_processes import LocalProcesses
from tests.cami2v.training.faulty import train_faulty
from tests.cami2v.training.toys import ToyDiffusion, forget_engine
from tools.replay_fault import replay

in_this_process = pytest.mark.usefixtures("one_process")


def losses(folder: Path) -> list[float | None]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "trainable.safetensors")


@in_this_process
def test_a_stopped_step_is_kept_and_can_be_computed_again(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError, match=r"step 4: loss nan.*faults/step-00000004 \(not finite: clip0013\)"):
        train_faulty(tmp_path, "single", policy="stop", broken=[13], checkpoint_every_steps=1)
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000003\n"
    fault = json.loads((tmp_path / "faults" / "step-00000004" / "fault.json").read_text())
    assert fault["last_checkpoint"].endswith("step-00000003")
    assert [row["clip"] for row in fault["samples"]] == ["clip0012", "clip0013", "clip0014", "clip0015"]
    share = read_share(tmp_path / "faults" / "step-00000004" / "rank-0.pt")
    model = ToyDiffusion()
    model.load_state_dict(weights(tmp_path, 3), strict=False)
    for kept, row in zip(share, fault["samples"], strict=True):
        torch.manual_seed(int(kept.batch.seeds[0]))
        again = model(kept.batch).loss_per_sample.item()
        assert again == pytest.approx(row["loss"], rel=1e-6, nan_ok=True)
        assert math.isnan(again) == (row["clip"] == "clip0013")


@in_this_process
def test_a_skipped_step_changes_no_weight_and_too_many_stop(tmp_path: Path) -> None:
    train_faulty(tmp_path, "single", policy="skip", broken=[9], checkpoint_every_steps=1, keep_last_checkpoints=9)
    assert [loss is None for loss in losses(tmp_path)] == [False, False, True, False, False, False]
    before, after = weights(tmp_path, 2), weights(tmp_path, 3)
    assert all(torch.equal(before[name], after[name]) for name in before)
    forget_engine()
    with pytest.raises(TrainingStoppedError, match="step 4: loss nan"):
        train_faulty(tmp_path / "many", "single", policy="skip", broken=range(99), in_a_row=3)


@in_this_process
def test_an_exploding_loss_is_measured_by_the_last_hundred_also_over_a_restart(tmp_path: Path) -> None:
    bright = [4 * 24 + 1]
    settings: dict[str, Any] = {"policy": "skip", "bright": bright, "max_steps": 26, "checkpoint_every_steps": 22}
    train_faulty(tmp_path / "whole", "single", **settings)
    forget_engine()
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000026")
    shutil.rmtree(tmp_path / "run" / "faults")
    (tmp_path / "run" / "checkpoints" / "latest").write_text("step-00000022")
    resumed = train_faulty(tmp_path / "run", "single", resume="auto", **settings)
    assert (tmp_path / "run" / "faults" / "step-00000025" / "rank-0.pt").is_file()
    assert losses(tmp_path / "run")[-4:] == losses(tmp_path / "whole")[-4:]
    fault = json.loads((tmp_path / "run" / "faults" / "step-00000025" / "fault.json").read_text())
    assert fault["exploded"]
    assert fault["loss"] > 100 * sorted(resumed.state.recent_losses)[12]
    assert fault["loss"] not in resumed.state.recent_losses


def test_all_engines_skip_the_same_steps_and_learn_nothing_from_them(tmp_path: Path) -> None:
    kinds = [("ddp", "fp32"), ("zero2", "fp32"), ("zero3", "fp32"), ("zero2", "bf16")]
    cases = [
        {
            "folder": str(tmp_path / f"{kind}-{precision}"), "kind": kind, "precision": precision, "policy": "skip",
            # Both on the second process alone.
            "broken": [9], "bright": [4 * 22 + 1], "max_steps": 24, "checkpoint_every_steps": 1, "dropout": 0.0,
            "keep_last_checkpoints": 99,
        }
        for kind, precision in kinds
    ]  # fmt: skip
    stopping = [{"folder": str(tmp_path / "stopped"), "kind": "zero2", "policy": "stop", "broken": [9]}]
    program = [sys.executable, "-m", "tests.cami2v.training.faulty", json.dumps(cases + stopping)]
    assert LocalProcesses(program, 2).wait() == 0
    for kind, precision in kinds:
        folder = tmp_path / f"{kind}-{precision}"
        assert [step + 1 for step, loss in enumerate(losses(folder)) if loss is None] == [3]
        assert sorted(path.name for path in (folder / "faults").iterdir()) == ["step-00000003", "step-00000023"]
        for step in (3, 23):
            before, after = weights(folder, step - 1), weights(folder, step)
            assert all(torch.equal(before[name], after[name]) for name in before), (kind, precision, step)
        last, this = weights(folder, 23), weights(folder, 24)
        assert any(not torch.equal(last[name], this[name]) for name in last)
        assert {path.name for path in (folder / "faults" / "step-00000023").iterdir()} == {
            "fault.json", "rank-0.pt", "rank-1.pt",
        }  # fmt: skip
        if precision == "fp32":
            known = [
                (a, b) for a, b in zip(losses(folder), losses(tmp_path / "ddp-fp32"), strict=True) if b is not None
            ]
            assert [a for a, _ in known] == pytest.approx([b for _, b in known], rel=1e-5)
    said = {(tmp_path / "stopped" / f"stopped-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(said) == 1
    assert "clip0009" in said.pop()


def test_settings_out_of_range_name_their_key() -> None:
    with pytest.raises(ValueError, match=r"faults.loss_explosion: got 1.0, expected a factor above 1, or null"):
        BadStepSettings(bad_step="stop", bad_steps_in_a_row=1, loss_explosion=1.0)
    with pytest.raises(ValueError, match="faults.bad_steps_in_a_row: got 0"):
        BadStepSettings(bad_step="stop", bad_steps_in_a_row=0, loss_explosion=None)


@in_this_process
def test_the_replay_names_where_it_stops_being_finite(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        train_faulty(tmp_path, "single", policy="stop", broken=[13])
    model = ToyDiffusion()
    model.load_state_dict(weights(tmp_path, 3), strict=False)
    kept = read_share(tmp_path / "faults" / "step-00000004" / "rank-0.pt")
    lines = [line for each in kept for line in replay(model, each, Precision.FP32)]
    assert [line.split()[0] for line in lines] == ["clip0012", "clip0013", "clip0014", "clip0015"]
    assert lines[1].endswith("nan           nan  frozen (Linear)")
    assert all(line.endswith("-") and line.split()[2] == line.split()[3] for line in (lines[0], *lines[2:]))
