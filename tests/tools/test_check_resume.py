"""The comparison; the runs that it compares take minutes and are started by hand."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.cami2v.training.conftest import one_process as one_process  # a fixture, used by name
from tests.cami2v.training.toys import forget_engine, train
from tools.check_resume import compare


@pytest.mark.usefixtures("one_process")
def test_one_bit_of_any_state_is_a_difference(tmp_path: Path) -> None:
    for name in ("whole", "other"):
        train(tmp_path / name, "single", max_steps=2, ema_decay=0.9)
        forget_engine()
    equal = compare(tmp_path / "whole", tmp_path / "other")
    assert (equal.loss, equal.tensors, equal.steps, set(equal.parts.values())) == (0.0, 0, 2, {0.0})
    path = tmp_path / "other/checkpoints/step-00000002/optimizer.safetensors"
    state = load_file(path)
    state["exp_avg/out.bias"][0] *= 1 + 2**-23
    save_file(state, path)
    found = compare(tmp_path / "whole", tmp_path / "other")
    assert found.tensors == 1
    assert found.parts["first moments"] > 0
    assert found.parts["weights"] == 0
