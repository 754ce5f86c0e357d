"""Conversion loses nothing, overwrites nothing, and what it writes loads as strictly as what it read."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cami2v.checkpoints.load_released import load_released
from tests.cami2v.checkpoints.released_files import (
    all_zero,
    base_and_delta,
    released_weights,
    save,
    tiny_model,
)
from tools.convert_checkpoint import main

ROOT = Path(__file__).parents[2]


def bits(tensors: dict[str, Tensor]) -> dict[str, tuple]:
    """Return what lossless means: name, dtype, shape and every bit."""
    return {
        name: (value.dtype, tuple(value.shape), bytes(value.contiguous().reshape(-1).view(torch.uint8).numpy()))
        for name, value in tensors.items()
    }


def odd_weights() -> dict[str, Tensor]:
    """Return weights with everything that a careless conversion would lose."""
    weights = {n.replace("fps_embedding", "framestride_embed"): v for n, v in released_weights("cami2v").items()}
    linear = "first_stage_model.encoder.mid.attn_1.q.weight"
    return weights | {
        linear: weights[linear][:, :, 0, 0],
        "betas": torch.linspace(0, 1, 1000, dtype=torch.float64),
        "pose_encoder.x.pos_encoder.pe": torch.arange(4),
        "model.diffusion_model.out.2.bias": torch.tensor([1.0, -0.0, float("nan"), 2.0**-24]).bfloat16(),
        "model.diffusion_model.out.0.weight": torch.randn(64, dtype=torch.float32)[::2],
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_released_to_ours_to_released_is_the_identity(tmp_path: Path, suffix: str) -> None:
    weights = odd_weights()
    source = save(tmp_path / "model.ckpt", weights, "state_dict")
    ours, back = tmp_path / "ours.safetensors", tmp_path / f"back{suffix}"
    assert main(["to-ours", str(source), str(ours)]) == 0
    assert main(["to-released", str(ours), str(back)]) == 0
    held = load_file(back) if suffix == ".safetensors" else torch.load(back, weights_only=True)["state_dict"]
    assert bits(held) == bits(weights)
    if suffix == ".pt":
        assert zipfile.ZipFile(back).testzip() is None
        assert list(held) == list(load_order(ours))
    names = set(load_file(ours))
    assert {"backbone.frame_rate_embedding.0.weight", "released_unused.betas"} < names


def load_order(ours: Path) -> list[str]:
    """Return the released names in the order in which the tensors of a file of ours lie."""
    from cami2v.checkpoints.convert import to_released

    return list(to_released(ours).tensors)


def test_a_converted_pair_loads_like_the_pair(tmp_path: Path) -> None:
    base, delta = base_and_delta()
    changed = {n: -v for n, v in base.items() if n.endswith("out.2.bias")}
    files = [save(tmp_path / "base.ckpt", base, "state_dict"), save(tmp_path / "delta.pt", delta | changed)]
    target = tmp_path / "ours.safetensors"
    assert main(["to-ours", f"{files[0]},{files[1]}", str(target)]) == 0
    models = [all_zero(tiny_model()) for _ in range(2)]
    load_released(files, models[0])
    report = load_released([target], models[1])
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert len(report.unused) == len(base) + len(delta) - len(report.matched)

    weights = load_file(target)
    metadata = {"format": "cami2v-weights-1"}
    renamed = {
        "backbone.output_convolution.biass" if n == "backbone.output_convolution.bias" else n: v
        for n, v in weights.items()
    }
    save_file(renamed, tmp_path / "renamed.safetensors", metadata=metadata)
    with pytest.raises(
        ValueError, match=r"unexpected backbone.output_convolution.biass; missing .*output_convolution.bias"
    ):
        load_released([tmp_path / "renamed.safetensors"], tiny_model())
    with pytest.raises(ValueError, match="this model is a 512 one"):
        load_released([target], tiny_model("cami2v", "backbone.learnable_image_scale=false"))
    with pytest.raises(ValueError, match="256 weights in a 512 model"):
        load_released([target], tiny_model("cami2v", "diffusion=v_zero_snr"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to-ours", "{source}", "{there}"], "there.safetensors: exists already; choose another name, or overwrite it"),
        (["to-ours", "{folder}/none.ckpt", "{new}"], "none.ckpt: there is no such file"),
        (["to-ours", "{source}", "{folder}/new.pt"], "our files are .safetensors files"),
        (["to-ours", "{source}", "{folder}/no/new.safetensors"], "no: there is no such folder"),
        (["to-ours", "{there}", "{there}", "--force"], "there.safetensors: is the source itself"),
        (["to-ours", "{there}", "{new}"], "there.safetensors: is under our names already"),
        (["to-ours", "{stray}", "{new}"], "model.stray (and 1 more) is of no released model known here"),
        (["to-released", "{source}", "{new}"], "source.ckpt: not written by to-ours or export"),
        (
            ["to-released", "{there}", "{folder}/new.bn"],
            "expected a name that ends in .safetensors, .pt, .ckpt or .bin",
        ),
        (["export", "{folder}", "{new}"], "no run folder there"),
    ],
)
def test_wrong_arguments_are_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    names = {"folder": tmp_path, "new": tmp_path / "new.safetensors", "there": tmp_path / "there.safetensors"}
    names["source"] = save(tmp_path / "source.ckpt", {"betas": torch.ones(3)}, "state_dict")
    names["stray"] = save(tmp_path / "stray.ckpt", {"model.stray": torch.ones(3), "model.other": torch.ones(1)})
    assert main(["to-ours", str(names["source"]), str(names["there"])]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert main([item.format(**names) for item in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_force_overwrites_and_the_command_has_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = save(tmp_path / "model.ckpt", released_weights()), tmp_path / "ours.safetensors"
    target.write_text("old")
    assert main(["to-ours", str(source), str(target), "--force"]) == 0
    assert f"{len(released_weights())} tensors" in capsys.readouterr().out
    metadata = json.loads(target.read_bytes()[8:].split(b"}, ")[0].partition(b'"__metadata__": ')[2] + b"}")
    assert json.loads(metadata["released_sources"])[0]["file"] == "model.ckpt"
    command = [sys.executable, "-m", "tools.convert_checkpoint", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "to-ours | to-released | export" in shown.stdout
