"""The loading check itself: the same path as at full size, at a size that CI has memory for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from launch.build import build_skeleton
from launch.compose import compose_config
from tests.cami2v.checkpoints.released_files import released_shapes
from tools import check_loading

# Wide enough that a second copy of the weights would show beside one tensor.
OVERRIDES = ["size=tiny", "backbone.widths=[64,128,384,384]", "backbone.head_width=32"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = released_shapes(build_skeleton(compose_config("train", ["experiment=cami2v_256", *OVERRIDES])))
    path = tmp_path_factory.mktemp("manifest") / "003_cami2v_256x256.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"entries": [{"name": name, "shape": list(shape)} for name, shape in shapes.items()]}, file)
    return path


def check(manifest: Path, *arguments: str) -> int:
    overrides = [item for override in OVERRIDES for item in ("--override", override)]
    return check_loading.main([str(manifest), *overrides, *arguments])


@pytest.mark.slow
def test_a_whole_file_loads_one_tensor_at_a_time(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(manifest, "--keep", str(tmp_path / "kept")) == 0
    printed = capsys.readouterr().out
    faults = [line.split("  ")[0] for line in printed.splitlines() if "refused" in line]
    assert faults == ["one key renamed", "one shape wrong", "camera keys absent", "wrong base (512 for 256)"]
    assert ", 0 differ from the file" in printed
    size = (tmp_path / "kept" / "model.ckpt").stat().st_size
    added = float(printed.partition("added by loading")[2].split()[0]) * 1e9
    assert size > 200e6
    assert added < size / 2


def test_a_fault_that_is_not_seen_fails_the_check(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes, experiment = check_loading.read_manifest(manifest, None)
    assert experiment == "cami2v_256"
    whole = check_loading.Fault(what="no fault at all", shapes=shapes, key="anything")
    monkeypatch.setattr(check_loading, "seeded_faults", lambda *arguments: iter([whole]))
    assert not check_loading.check_faults(shapes, experiment, OVERRIDES, tmp_path)
    assert "NOT SEEN   loaded without a word" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        ("000_dynamicrafter_512x320", "dynamicrafter_512"),
        ("004_realcam-i2v_paste900_256x256", "realcam_i2v_256"),
        ("training__004_realcam-i2v_512x320", "realcam_i2v_512"),
    ],
)
def test_the_manifest_names_its_experiment(tmp_path: Path, name: str, experiment: str) -> None:
    path = tmp_path / f"{name}.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"config": name, "entries": []}, file)
    assert check_loading.read_manifest(path, None) == ({}, experiment)


def test_what_is_no_manifest_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json.gz").write_text("{}")
    assert check_loading.main([str(tmp_path / "x.json.gz")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
