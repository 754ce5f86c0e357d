"""Every kind of weights file opens by name and shape, reads back bit for bit, and runs nothing."""

from __future__ import annotations

import enum
import os
import pickle
import re
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cami2v.checkpoints.archives import Archive, open_archive

SHARED = torch.arange(24, dtype=torch.float32)
WEIGHTS: dict[str, Tensor] = {
    "model.weight": torch.randn(3, 4, dtype=torch.float16),
    "model.scalar": torch.tensor(2.5),
    "model.empty": torch.zeros(0, 7),
    "model.bfloat": torch.randn(5).bfloat16(),
    "model.counts": torch.arange(6).reshape(2, 3),
    "model.flags": torch.tensor([True, False]),
}
VIEWS: dict[str, Tensor] = {
    "tail": SHARED[10:],
    "transposed": SHARED.reshape(4, 6).T,
    "strided": SHARED[1::5],
    "expanded": torch.tensor([7.0]).expand(3, 5),
    "parameter": nn.Parameter(SHARED.reshape(2, 12)),
}
LEGACY = {"_use_new_zipfile_serialization": False}


def same(archive: Archive, expected: dict[str, Tensor]) -> bool:
    """Compare names, shapes, dtypes and bits; the entries must announce what `read` then gives."""
    assert archive.tensors.keys() == expected.keys()
    for name, value in expected.items():
        got, entry = archive.read(name), archive.tensors[name]
        assert (entry.shape, entry.dtype) == (tuple(got.shape), got.dtype) == (tuple(value.shape), value.dtype), name
        assert torch.equal(got, value.detach()), name
    return True


@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
def test_every_format_reads_back(tmp_path: Path, format: str) -> None:
    path = tmp_path / "weights"
    if format == "safetensors":
        save_file(WEIGHTS, path, metadata={"note": "x"})
        assert open_archive(path).metadata == {"note": "x"}
    else:
        torch.save(WEIGHTS, path, **(LEGACY if format == "legacy" else {}))
    assert same(open_archive(path), WEIGHTS)


@pytest.mark.parametrize("options", [{}, LEGACY, {"pickle_protocol": 4}])
def test_views_of_shared_storages_are_read_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.save(VIEWS, tmp_path / "views.pt", **options)
    archive = open_archive(tmp_path / "views.pt")
    assert same(archive, VIEWS)
    assert archive.tensors["expanded"].bytes_spanned == 4


def test_dtypes_without_a_storage_class_of_their_own(tmp_path: Path) -> None:
    weights = {
        "eight": torch.randn(4).to(torch.float8_e4m3fn),
        "unsigned": torch.tensor([1, 65535], dtype=torch.uint16),
    }
    torch.save(weights, tmp_path / "weights.pt")
    archive = open_archive(tmp_path / "weights.pt")
    assert archive.tensors["eight"].dtype is torch.float8_e4m3fn
    assert archive.read("unsigned").tolist() == [1, 65535]
    assert torch.equal(archive.read("eight").view(torch.uint8), weights["eight"].view(torch.uint8))


@pytest.mark.parametrize(
    ("wrap", "layout"),
    [
        (lambda w: w, "torch zip"),
        (lambda w: {"state_dict": w, "epoch": 3}, "torch zip, [state_dict]"),
        (lambda w: {"module": w, "optimizer": None}, "torch zip, [module]"),
        (lambda w: {"module": {"state_dict": w}}, "torch zip, [module], [state_dict]"),
        (lambda w: {"state_dict": {"module": w}}, "torch zip, [state_dict], [module]"),
        (lambda w: {"module": {f"_forward_module.{n}": v for n, v in w.items()}}, "torch zip, [module]"),
        (lambda w: {f"module._orig_mod.{n}": v for n, v in w.items()}, "torch zip"),
    ],
)
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrap: Any, layout: str) -> None:
    torch.save(wrap(OrderedDict(WEIGHTS)), tmp_path / "model.ckpt")
    archive = open_archive(tmp_path / "model.ckpt")
    assert same(archive, WEIGHTS)
    assert archive.layout == layout


def test_the_same_weight_with_and_without_prefix_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "module.a": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="with and without a prefix"):
        open_archive(tmp_path / "model.pt")


class Phase(enum.Enum):
    """Lightning's progress is keyed by such members."""

    FIT = "fit"


class Attributes(dict):
    """A dict subclass with attributes, as hyper-parameters are."""


def lightning_file(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> Path:
    """Write a Lightning file full of classes that do not exist any more when it is read."""
    module = types.ModuleType("departed")
    for kind in (Phase, Attributes):
        monkeypatch.setattr(kind, "__module__", "departed")
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(__import__("sys").modules, "departed", module)
    settings = Attributes(lr=1e-4, folder=Path("/somewhere"))
    vars(settings)["tags"] = [1, {2}, Phase.FIT]
    held = {
        "state_dict": OrderedDict(WEIGHTS),
        "hyper_parameters": settings,
        "callbacks": {Attributes: {"best": torch.tensor(0.5)}, Phase.FIT: None},
        "loops": {Phase.FIT: settings},
        **more,
    }
    torch.save(held, folder / "model.ckpt")
    monkeypatch.delitem(__import__("sys").modules, "departed")
    return folder / "model.ckpt"


def test_foreign_classes_in_a_lightning_file_are_inert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lightning_file(tmp_path, monkeypatch)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert same(open_archive(path), WEIGHTS)


class Harmful:
    """Runs something when unpickled the ordinary way."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("options", [{}, LEGACY, {"pickle_protocol": 4}])
def test_pickled_code_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    trace = tmp_path / "it ran"
    calls = [
        Harmful(os.system, f"touch '{trace}'"),
        Harmful(eval, f"open({str(trace)!r}, 'w').close()"),
        Harmful(getattr, dict, "update"),
    ]
    held = {"state_dict": OrderedDict(WEIGHTS), "callbacks": calls}
    torch.save(held, tmp_path / "model.ckpt", **options)
    assert same(open_archive(tmp_path / "model.ckpt"), WEIGHTS)
    assert not trace.exists()
    torch.load(tmp_path / "model.ckpt", weights_only=False)
    assert trace.exists()


def test_deepspeed_folders(tmp_path: Path) -> None:
    lightning = tmp_path / "epoch.ckpt"
    (lightning / "checkpoint").mkdir(parents=True)
    states = lightning / "checkpoint" / "mp_rank_00_model_states.pt"
    torch.save({"module": {f"_forward_module.{n}": v for n, v in WEIGHTS.items()}, "dp_world_size": 8}, states)
    assert same(open_archive(lightning), WEIGHTS)
    assert same(open_archive(lightning / "checkpoint"), WEIGHTS)
    (lightning / "latest").write_text("checkpoint\n")
    assert open_archive(lightning).path == states

    torch.save(WEIGHTS, lightning / "checkpoint" / "mp_rank_01_model_states.pt")
    with pytest.raises(ValueError, match="model-parallel checkpoint in 2 parts"):
        open_archive(lightning)
    states.rename(lightning / "checkpoint" / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(ValueError, match="a ZeRO-3 checkpoint, whose weights lie in pieces.*zero_to_fp32.py"):
        open_archive(lightning)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!doctype html><html>", "a web page"),
        (b"x" * 100, "not a weights file"),
    ],
)
def test_what_is_no_weights_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=f"model.ckpt: .*{message}"):
        open_archive(tmp_path / "model.ckpt")


@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused_when_opened(tmp_path: Path, format: str, share: float) -> None:
    path, weights = tmp_path / "model.pt", {"a": torch.randn(2000), "b": torch.randn(3000)}
    if format == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, **(LEGACY if format == "legacy" else {}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=re.escape(f"{path}: not a readable")) as refusal:
        open_archive(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_pickles_end_in_one_line_or_in_other_names(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "model.pt"
    torch.save(WEIGHTS, path, **LEGACY)
    damaged, generator = bytearray(path.read_bytes()), torch.Generator().manual_seed(seed)
    for _ in range(8):
        position = int(torch.randint(15, len(damaged) // 2, (1,), generator=generator))
        damaged[position] = int(torch.randint(256, (1,), generator=generator))
    path.write_bytes(damaged)
    assert "\n" not in refusal(path)


def refusal(path: Path) -> str:
    """Return the line with which a file is refused; empty where it opens."""
    try:
        open_archive(path)
    except ValueError as error:
        return str(error)
    return ""


def test_no_tensors_inside(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "step": 3}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"no tensors among its keys \(model, step\)"):
        open_archive(tmp_path / "model.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, expected a dict"):
        open_archive(tmp_path / "list.pt")
    with pytest.raises(ValueError, match="there is no such file"):
        open_archive(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="name the weights file itself"):
        open_archive(tmp_path)
