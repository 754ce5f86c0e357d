"""Reads `cases/models`: networks whose weights follow from their released names, with the outputs they gave."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cami2v.batch import Cameras
from cami2v.checkpoints.released_names import our_names, released_names, to_our_shape, to_released_shape
from cami2v.draws import Draws
from tests.golden.cases import golden_folder, load_arrays, normal_rounded

RELATIVE_L2 = 1e-4
MAXIMUM = 1e-3


@dataclass(frozen=True)
class ModelCase:
    """One case: hyper-parameters, inputs rebuilt from their keys, stored outputs and masks."""

    name: str
    index: dict[str, Any]

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        return self.index["hyper_parameters"]

    def input(self, name: str) -> Tensor:
        """Rebuild an input."""
        entry = self.index["inputs"][name]
        if "values" in entry:
            return torch.tensor(entry["values"])
        values = normal_rounded(entry["rng_key"], tuple(entry["shape"]))
        transforms: dict[str, Callable[[Tensor], Tensor]] = {
            "n": lambda n: n,
            "clip(0.5*n,-1,1)": lambda n: (0.5 * n).clamp(-1, 1),
            "abs(n)+0.5": lambda n: n.abs() + 0.5,
        }
        return transforms[entry["transform"]](values)

    def output(self, name: str) -> Tensor:
        """Load a stored output."""
        return _arrays(self.index["file"])[f"out__{name}"]

    def mask(self, pixels: str) -> Tensor:
        """Unpack the stored epipolar mask of the level whose cells measure `pixels`."""
        entry = self.index["masks"][pixels]
        file, key = entry["stored_in"]
        return _unpack(_arrays(file)[key], entry["shape"])

    def flagged_mask(self, key: str) -> Tensor:
        """Unpack a mask of the option cases."""
        return _unpack(_arrays(self.index["file"])[f"mask__{key}"], self.index["masks"][key]["shape"])


def model_case(name: str) -> ModelCase:
    """Load one case by name."""
    return ModelCase(name=name, index=_index()["cases"][name])


def cameras(geometry: str) -> tuple[Cameras, Tensor]:
    """Build the cameras of a stored geometry and its conditioning frames."""
    entry = _index()["geometries"][geometry]
    arrays = _arrays("geometries.npz")
    matrices = arrays[f"{geometry}__K"].double()
    intrinsics = torch.stack([matrices[..., 0, 0], matrices[..., 1, 1], matrices[..., 0, 2], matrices[..., 1, 2]], -1)
    world_to_camera = arrays[f"{geometry}__RT_w2c"].double()[..., :3, :]
    height, width = entry["image_hw"]
    built = Cameras(
        world_to_camera=world_to_camera,
        intrinsics_pixels=intrinsics,
        translation_scale=torch.ones(world_to_camera.shape[:2], dtype=torch.float64),
        height=height,
        width=width,
    )
    return built, torch.tensor(entry["cond_frame_index"])


class StoredPerturbation(Draws):
    """Returns a geometry's stored perturbation instead of a draw."""

    def __init__(self, geometry: str) -> None:
        self.geometry = geometry

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        assert purpose == "epipolar_perturbation"
        batch = len(_index()["geometries"][self.geometry]["cond_frame_index"])
        return normal_rounded(f"geom/{self.geometry}/perturb", (batch, *shape, 1))[..., 0]


def fill(module: nn.Module, *, ours: str, released: str) -> int:
    """Give every parameter the value that follows from its released name; return how many numbers that were.

    `ours` and `released` are the module's prefixes in a whole model and checkpoint; the value's key is the released
    name without its prefix.
    """
    parameters = {f"{ours}{name}": parameter for name, parameter in module.named_parameters()}
    total = 0
    for name, released_name in released_names(parameters).items():
        assert released_name.startswith(released), released_name
        shape = to_released_shape(name, parameters[name].detach()).shape
        value = _value(released_name.removeprefix(released), tuple(shape))
        with torch.no_grad():
            parameters[name].copy_(to_our_shape(name, value))
        total += value.numel()
    return total


def stored_keys(case: str, part: str) -> dict[str, tuple[int, ...]]:
    """Return parameter names and shapes of a released sub-module."""
    return {name: tuple(shape) for name, shape, kind in _keys()[f"{case}:{part}"] if kind == "param"}


def assert_same_names(module: nn.Module, *, ours: str, released: str, keys: dict[str, tuple[int, ...]]) -> None:
    """Check that the parameters and the released ones are the same, one to one, shapes included."""
    translation = our_names(f"{released}{name}" for name in keys)
    assert not translation.unknown
    expected = {our: keys[name.removeprefix(released)] for name, our in translation.ours.items()}
    actual = {
        f"{ours}{name}": tuple(to_released_shape(f"{ours}{name}", parameter.detach()).shape)
        for name, parameter in module.named_parameters()
    }
    assert actual == expected
    assert {our: name for name, our in translation.ours.items()} == released_names(actual)


def assert_close(actual: Tensor, expected: Tensor, *, relative: float = RELATIVE_L2, maximum: float = MAXIMUM) -> None:
    """Compare as published: relative L2 norm and largest difference."""
    assert actual.shape == expected.shape
    difference = (actual - expected).double()
    assert difference.norm() / expected.double().norm() <= relative
    assert difference.abs().max() <= maximum


def _value(key: str, shape: tuple[int, ...]) -> Tensor:
    numbers = normal_rounded(key, shape)
    if len(shape) >= 2:
        return (numbers / np.sqrt(np.prod(shape[1:]))).float()
    if key.endswith(".weight"):
        return (1 + 0.1 * numbers).float()
    return (0.1 * numbers).float()


@functools.cache
def _index() -> dict[str, Any]:
    return json.loads((golden_folder() / "cases" / "models" / "index.json").read_text())


@functools.cache
def _keys() -> dict[str, Any]:
    with gzip.open(golden_folder() / "cases" / "models" / "keys.json.gz", "rt") as file:
        return json.load(file)


@functools.cache
def _arrays(file: str) -> dict[str, Tensor]:
    return load_arrays(golden_folder() / "cases" / "models" / file)


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    bits = np.unpackbits(packed.numpy())[: int(np.prod(shape))]
    return torch.from_numpy(bits.astype(bool).reshape(shape))
