import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.load import find_weights, load_weights, read_metadata
from cami2v.checkpoints.resume import read_record
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


def test_frozen_weights_are_not_saved(run: Path) -> None:
    assert sorted(load_file(run / "checkpoints/step-00000003/engine/model.safetensors")) == [
        "model.hidden.bias",
        "model.hidden.weight",
        "model.out.bias",
        "model.out.weight",
    ]


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


def test_resume_with_a_missing_random_state_is_an_error(run: Path) -> None:
    (run / "checkpoints/step-00000003/engine/random_states_0.pkl").unlink()
    with pytest.raises(ValueError, match=r"random_states_0.pkl: missing, the checkpoint is incomplete"):
        train(run, "single", resume="auto")


def test_resume_notices_weights_that_did_not_arrive(run: Path) -> None:
    path = run / "checkpoints/step-00000003/engine/model.safetensors"
    weights = load_file(path)
    del weights["model.out.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 restored weights differ from trainable.safetensors \(first: out.weight\)"):
        train(run, "single", resume="auto")


def test_resume_refuses_another_set_of_trained_weights(run: Path) -> None:
    path = find_weights(run)
    weights = load_file(path)
    del weights["out.weight"]
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"holds 3 trained weights, this run trains 4 .*first out.weight"):
        train(run, "single", resume="auto")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "zero2"}, "was written with engine single, this run has zero2; use engine=single"),
        ({"kind": "single", "precision": "bf16"}, "was written with precision fp32, this run has bf16"),
    ],
)
def test_resume_under_another_engine_or_precision_says_what_to_use(run: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(run, resume="auto", **changes)


def test_a_damaged_record_is_an_error(run: Path) -> None:
    (run / "checkpoints/step-00000003/trainer.json").write_text("{")
    with pytest.raises(ValueError, match="the checkpoint is damaged"):
        read_record(run / "checkpoints/step-00000003")


def test_old_checkpoints_go_and_the_newest_stay(tmp_path: Path) -> None:
    train(tmp_path, "single", max_steps=5, checkpoint_every_steps=1, keep_last_checkpoints=2)
    names = sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000004", "step-00000005"]


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
