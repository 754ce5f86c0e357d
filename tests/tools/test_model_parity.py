"""The runners of tools.parity for models: nothing is tied to the published folder, and nothing slips through."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tools.own_model_cases import CASES
from tests.tools.own_models_folder import make_models_folder
from tools.parity.jobs import Job, find_jobs
from tools.parity.verdicts import Status, judge


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models_folder(tmp_path_factory.mktemp("parity") / "models")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "models"))


@pytest.mark.parametrize("case", CASES)
def test_other_names_sizes_and_settings(folder: Path, case: str) -> None:
    result = judge(job(folder, case))
    assert result.status == Status.PASSED, (result.reason, result.worst)
    assert result.compared > 1


def test_unknown_kind_is_unsupported(copy: Path) -> None:
    edit_index(copy, "h", lambda entry: entry.update(kind="novelty"))
    assert judge(job(copy, "h")).status == Status.UNSUPPORTED


@pytest.mark.parametrize(("case", "output"), [("a", "y"), ("g", "feature_1"), ("i", "decode"), ("j", "last")])
def test_changed_output_fails(copy: Path, case: str, output: str) -> None:
    edit_arrays(copy, case, f"out__{output}", lambda values: values * 1.01)
    assert failures(copy, case) == [f"{output} (relative)", f"{output} (maximum)"]


def test_first_diverging_stage_is_named(copy: Path) -> None:
    def shift(entry: dict[str, Any]) -> None:
        for name in ("input_blocks.2", "middle_block", "output_blocks.0"):
            entry["taps"][name]["checksum"][0] += 1e3

    edit_index(copy, "c", shift)
    edit_arrays(copy, "c", "out__y", lambda values: values + 1)
    assert failures(copy, "c") == [
        "tap input_blocks.2 (checksum)",
        "tap middle_block, first to diverge: input_blocks.2, (checksum)",
        "tap output_blocks.0, first to diverge: input_blocks.2, (checksum)",
        "y, first to diverge: input_blocks.2, (relative)",
        "y, first to diverge: input_blocks.2, (maximum)",
    ]


def test_renamed_parameter_is_named(copy: Path) -> None:
    edit_key(copy, "h:resampler", "to_kv.weight", lambda name, shape: (name.replace("to_kv", "to_vk"), shape))
    named = failures(copy, "h")
    assert "resampler: released names that no rule explains: image_proj_model.layers.0.0.to_vk.weight" in named
    ours = "image_projector.layers.0.attention.to_key_and_value.weight"
    assert f"resampler: parameters without a released one: {ours}" in named


def test_parameter_of_another_shape_is_named(copy: Path) -> None:
    edit_key(copy, "c:unet", "register_tokens", lambda name, shape: (name, [1, 4, 64]))
    (named,) = failures(copy, "c")
    assert named.startswith("unet: shapes unlike the released ones: ")
    assert "register_tokens" in named


def test_changed_mask_fails(copy: Path) -> None:
    edit_arrays(copy, "f", "mask__1__16", lambda packed: packed ^ np.array([0b11] + [0] * (len(packed) - 1), np.uint8))
    assert failures(copy, "f")[-1].startswith("masks of all levels (")


def test_changed_numbers_of_a_whole_model_fail(copy: Path) -> None:
    def spoil(entry: dict[str, Any]) -> None:
        entry["loss"] *= 1.001
        entry["trainable"].pop()
        first, second, *_ = entry["grads"]
        entry["grads"][first][0] *= 1.05
        entry["grads"][second][1] += 10 * entry["grads"][second][0]

    edit_index(copy, "l", spoil)
    edit_arrays(copy, "l", "out__z", lambda values: values * 1.01)
    quantities = ["trained here only", "z", "z", "loss", "gradient norms", "gradient sums"]
    for named, quantity in zip(failures(copy, "l"), quantities, strict=True):
        assert named.startswith(quantity)


@pytest.mark.parametrize(
    ("case", "change", "quantity"),
    [
        ("b", lambda entry: entry["weights"]["unet"].update(sum=0.0), "unet: sum of weights"),
        ("j", lambda entry: entry["inputs"]["tokens"]["values"][0].__setitem__(3, 7), "tokens"),
        ("d", lambda entry: entry["taps"]["plucker"]["checksum"].__setitem__(7, 1.0), "tap plucker (checksum)"),
        ("e", lambda entry: entry["inputs"]["timesteps"].update(values=[613]), "y, first to diverge: input_blocks.3,"),
    ],
)
def test_changed_number_fails(copy: Path, case: str, change: Callable[[dict[str, Any]], object], quantity: str) -> None:
    edit_index(copy, case, change)
    assert any(name.startswith(quantity) for name in failures(copy, case))


def test_setting_that_we_do_not_have_is_refused_by_name(copy: Path) -> None:
    edit_index(copy, "b", lambda entry: entry["hyper_parameters"]["unet"].update(use_linear=False))
    assert "unet.use_linear: got False" in judge(job(copy, "b")).reason


def job(folder: Path, case: str) -> Job:
    return next(job for job in find_jobs(folder) if job.name == case)


def failures(folder: Path, case: str) -> list[str]:
    """Run a case and name what does not agree."""
    run = job(folder, case).run
    assert run is not None
    return [measurement.name for measurement in run().measurements if not measurement.agrees]


def edit_key(folder: Path, part: str, suffix: str, change: Callable[[str, list[int]], tuple[str, list[int]]]) -> None:
    path = folder / "keys.json.gz"
    with gzip.open(path, "rt") as file:
        keys = json.load(file)
    place = next(place for place, row in enumerate(keys[part]) if row[0].endswith(suffix))
    name, shape, kind = keys[part][place]
    keys[part][place] = [*change(name, shape), kind]
    with gzip.open(path, "wt") as file:
        json.dump(keys, file)


def edit_index(folder: Path, case: str, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / "index.json").read_text())
    change(index["cases"][case])
    (folder / "index.json").write_text(json.dumps(index))


def edit_arrays(folder: Path, case: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with np.load(folder / f"{case}.npz") as stored:
        arrays = dict(stored)
    arrays[name] = change(arrays[name])
    np.savez(folder / f"{case}.npz", **arrays)
