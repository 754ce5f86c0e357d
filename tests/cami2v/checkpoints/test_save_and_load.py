import errno
import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cami2v.checkpoints import write
from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.integrity import check_files, read_record
from cami2v.checkpoints.load import find_weights, load_weights, read_metadata
from cami2v.training.callbacks.base import TrainingStoppedError
from cami2v.training.random_states import random_states, restore_random_states
from cami2v.training.run_folder import RunFolder
from cami2v.training.trained_state import ReplicatedState
from tests.cami2v.training.conftest import one_process as one_process  # a fixture, used by name
from tests.cami2v.training.toys import ToyDiffusion, forget_engine, train

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def run(tmp_path: Path, one_process: None) -> Path:
    train(tmp_path / "run", "single", max_steps=3)
    forget_engine()
    return tmp_path / "run"


def test_the_weights_file_holds_the_trained_weights_and_where_they_come_from(run: Path) -> None:
    weights = load_file(run / "checkpoints/step-00000003/trainable.safetensors")
    assert sorted(weights) == ["hidden.bias", "hidden.weight", "out.bias", "out.weight"]
    metadata = read_metadata(find_weights(run))
    assert (metadata["step"], metadata["scale_policy"], metadata["seed"]) == ("3", "relative", "7")
    record = json.loads((run / "checkpoints/step-00000003/trainer.json").read_text())
    assert (record["engine"], record["world_size"]) == ("single", 1)
    assert record["state"]["samples_seen"] == 12
    assert "torch" in record["versions"]


def test_optimizer_state_is_saved_under_parameter_names_and_nothing_of_frozen_weights(run: Path) -> None:
    names = ["hidden.bias", "hidden.weight", "out.bias", "out.weight"]
    state = load_file(run / "checkpoints/step-00000003/optimizer.safetensors")
    assert sorted(state) == sorted(f"{part}/{name}" for part in ("exp_avg", "exp_avg_sq", "step") for name in names)
    assert {int(state[f"step/{name}"]) for name in names} == {3}
    assert state["exp_avg_sq/out.weight"].shape == (16, 64)


@pytest.mark.parametrize("source", ["", "checkpoints/step-00000003", "checkpoints/step-00000003/trainable.safetensors"])
def test_init_from_takes_run_checkpoint_or_file(run: Path, source: str) -> None:
    model = ToyDiffusion()
    load_weights(run / source, model)
    saved = load_file(run / "checkpoints/step-00000003/trainable.safetensors")
    assert all(torch.equal(dict(model.named_parameters())[name], value) for name, value in saved.items())


def test_init_from_refuses_another_frozen_base(run: Path) -> None:
    model = ToyDiffusion()
    with torch.no_grad():
        model.frozen.weight[0, 0] += 1e-6
    with pytest.raises(ValueError, match="was trained on other frozen weights"):
        load_weights(run, model)


def test_init_from_refuses_unknown_names_and_other_shapes(run: Path) -> None:
    path = find_weights(run)
    weights = load_file(path)
    save_file(weights | {"camera.extra": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"holds 1 weights that this model lacks \(first: camera.extra\)"):
        load_weights(run, ToyDiffusion())
    save_file(weights | {"out.bias": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"out.bias has shape \(3,\), this model's has \(16,\)"):
        load_weights(run, ToyDiffusion())


def test_init_from_refuses_what_is_not_there_or_damaged(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_weights(tmp_path / "nothing", ToyDiffusion())
    path = find_weights(run)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(run, ToyDiffusion())


@pytest.mark.parametrize("file", ["trainable", "optimizer", "random_states"])
def test_one_flipped_bit_in_any_file_is_found_and_named(run: Path, file: str) -> None:
    path = run / f"checkpoints/step-00000003/{file}.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: its SHA-256 is not that.*no older intact checkpoint"):
        train(run, "single", resume="auto")


def test_a_damaged_checkpoint_names_the_older_one_and_auto_takes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "whole", "single")
    forget_engine()
    train(tmp_path / "run", "single", keep_last_checkpoints=9, checkpoint_every_steps=1)
    forget_engine()
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "step-00000006" / "optimizer.safetensors").unlink()
    (checkpoints / "step-00000005" / "trainable.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"optimizer.safetensors: missing; write step-00000004 into .*latest"):
        train(tmp_path / "other", "single", resume=str(tmp_path / "run"))
    train(tmp_path / "run", "single", resume="auto")
    assert "optimizer.safetensors: missing; continuing from the older checkpoint step-00000004 instead" in caplog.text
    assert "trainable.safetensors: has 5 bytes" in caplog.text
    ours, theirs = (load_file(tmp_path / name / "checkpoints/step-00000006/trainable.safetensors")
                    for name in ("run", "whole"))  # fmt: skip
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_resume_notices_what_did_not_arrive(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplicatedState, "_write", lambda self, part, parameter, value: None)
    with pytest.raises(ValueError, match=r"trainable.safetensors: 4 restored tensors differ from the file"):
        train(run, "single", resume="auto")


def test_resume_refuses_another_set_of_trained_weights(run: Path) -> None:
    model = ToyDiffusion()
    model.frozen.bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"holds 4 trained weights, this run trains 5 .*first frozen.bias"):
        train(run, "single", resume="auto", model=model)


def test_resume_with_another_global_batch_says_what_to_use(run: Path) -> None:
    with pytest.raises(ValueError, match="with global_batch_size 4, this run has 8; use trainer.global_batch_size=4"):
        train(run, "single", resume="auto", global_batch_size=8)


@pytest.mark.parametrize("changes", [{"kind": "ddp", "precision": "bf16"}, {"kind": "single", "micro_batch_size": 4}])
def test_precision_and_micro_batch_may_change_with_a_resume(run: Path, changes: dict) -> None:
    trainer = train(run, resume="auto", max_steps=4, **changes)
    assert (trainer.state.step, trainer.state.samples_seen) == (4, 16)
    assert set(trainer.engine.trained_state.steps().values()) == {4}


def test_a_checkpoint_of_an_older_layout_says_how_to_use_its_weights(run: Path) -> None:
    path = run / "checkpoints/step-00000003/trainer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    with pytest.raises(ValueError, match=r"has format 1, this version continues format 2; .*init_from=.*step-00000003"):
        train(run, "single", resume="auto")


def test_a_damaged_record_is_an_error(run: Path) -> None:
    (run / "checkpoints/step-00000003/trainer.json").write_text("{")
    with pytest.raises(ValueError, match="trainer.json: cannot be read"):
        read_record(run / "checkpoints/step-00000003")


def test_a_record_that_was_edited_is_an_error(run: Path) -> None:
    path = run / "checkpoints/step-00000003/trainer.json"
    path.write_text(path.read_text().replace('"samples_seen": 12', '"samples_seen": 16'))
    with pytest.raises(ValueError, match="trainer.json: was changed after it was written"):
        read_record(run / "checkpoints/step-00000003")


def test_a_run_killed_before_its_first_checkpoint_starts_with_an_empty_history(tmp_path: Path) -> None:
    RunFolder(tmp_path).append_metrics({"step": 1, "loss": 9.0})
    train(tmp_path, "single", max_steps=2, resume="auto")
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert json.loads((tmp_path / "metrics.discarded.jsonl").read_text())["loss"] == 9.0


def test_old_checkpoints_go_and_the_newest_stay(tmp_path: Path) -> None:
    train(tmp_path, "single", max_steps=5, checkpoint_every_steps=1, keep_last_checkpoints=2)
    names = sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000004", "step-00000005"]


def test_checkpoints_of_every_n_steps_stay(tmp_path: Path) -> None:
    train(tmp_path, "single", max_steps=7, checkpoint_every_steps=1, keep_last_checkpoints=1, keep_every_steps=3)
    names = sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000003", "step-00000006", "step-00000007"]
    check_files(tmp_path / "checkpoints/step-00000003")


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_stops_the_run_with_the_last_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    def full(tensors: dict, path: str, metadata: dict | None) -> None:
        if "step-00000004" in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(write, "save_file", full)
    with pytest.raises(TrainingStoppedError, match=r"could not be written.*No space left.*Last good .*step-00000002"):
        train(tmp_path, "single", checkpoint_every_steps=2, background_checkpoints=background)
    assert sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-00000002"]
    check_files(tmp_path / "checkpoints/step-00000002")


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(TrainingStoppedError, match=r"a checkpoint needs 0.00 GiB and 0.00 GiB are free.*none"):
        train(tmp_path, "single")
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_random_states_come_back() -> None:
    def draws() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.normal(), float(torch.rand(1))]

    random.gauss(0, 1)
    np.random.normal()
    states = random_states()
    expected = draws()
    restore_random_states(states)
    assert draws() == expected


def test_a_checkpoint_left_behind_by_a_killed_run_is_replaced(run: Path) -> None:
    """Killed after the rename, before `latest` named it: the step is trained and saved again."""
    shutil.copytree(run / "checkpoints/step-00000003", run / "checkpoints/step-00000006")
    train(run, "single", resume="auto")
    assert read_record(run / "checkpoints/step-00000006")["state"]["step"] == 6


def test_the_fingerprint_sees_one_bit_and_ignores_what_is_excluded() -> None:
    model, other = ToyDiffusion(), ToyDiffusion()
    with torch.no_grad():
        other.frozen.weight[0, 0] = torch.nextafter(other.frozen.weight[0, 0], torch.tensor(9.0))
    assert fingerprint(model, []) != fingerprint(other, [])
    assert fingerprint(model, ["frozen.weight"]) == fingerprint(other, ["frozen.weight"])


def test_the_fingerprint_leaves_out_the_depth_network() -> None:
    model = ToyDiffusion()
    before = fingerprint(model, [])
    model.depth = torch.nn.Linear(2, 2)
    assert fingerprint(model, []) == before
