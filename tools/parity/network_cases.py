"""Reads `models/` of a folder of cases: networks whose weights and inputs follow from names, and what they gave."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.draws import Draws
from tools.parity.cases import load_arrays, normal_rounded, unpack_mask
from tools.parity.checks import Checks

RELATIVE, MAXIMUM = 1e-4, 1e-3
"""The published tolerances of a network's output: relative L2 norm and largest difference."""
CHECKSUM = 1e-3
"""Tolerance of a checksum's entries, in units of the tensor's root mean square."""

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "n": lambda normal: normal,
    "clip(0.5*n,-1,1)": lambda normal: (0.5 * normal).clamp(-1, 1),
    "abs(n)+0.5": lambda normal: normal.abs() + 0.5,
}


class ModelsFolder:
    """`index.json`, `keys.json.gz` and `geometries.npz`, each read once. Raises ValueError where there is no index."""

    def __init__(self, path: Path) -> None:
        if not (path / "index.json").is_file():
            raise ValueError(f"{path}: no index.json; give a folder in the format of shared/golden/cases/models")
        self.path = path

    @functools.cached_property
    def index(self) -> dict[str, Any]:
        """Cases and geometries by name."""
        return json.loads((self.path / "index.json").read_text())

    @functools.cached_property
    def keys(self) -> dict[str, list[tuple[str, list[int], str]]]:
        """Names, shapes and kinds of every sub-module's state dict, by "case:submodule"."""
        with gzip.open(self.path / "keys.json.gz", "rt") as file:
            return json.load(file)

    @functools.cached_property
    def geometries(self) -> dict[str, Tensor]:
        """Poses and intrinsics, by "<geometry>__<array>"."""
        return load_arrays(self.path / "geometries.npz")


@dataclass(frozen=True)
class ModelCase:
    """One case: hyper-parameters, inputs rebuilt from their keys, stored outputs and masks."""

    name: str
    folder: ModelsFolder

    @property
    def entry(self) -> dict[str, Any]:
        """All the index says of the case."""
        return self.folder.index["cases"][self.name]

    @property
    def kind(self) -> str:
        """Which network it is about."""
        return self.entry["kind"]

    @property
    def family(self) -> str:
        """The kind, under the name that cases of the folder itself have for it."""
        return self.kind

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Settings under their published names."""
        return self.entry["hyper_parameters"]

    @property
    def inputs(self) -> dict[str, Any]:
        """Descriptions and literal values of the inputs."""
        return self.entry["inputs"]

    @property
    def outputs(self) -> dict[str, Any]:
        """Descriptions of the stored outputs."""
        return self.entry["outputs"]

    @property
    def taps(self) -> dict[str, Any]:
        """Shapes and checksums of intermediate tensors."""
        return self.entry.get("taps", {})

    def input(self, name: str) -> Tensor:
        """Rebuild an input."""
        entry = self.inputs[name]
        if isinstance(entry, list):
            return torch.tensor(entry)
        if "values" in entry:
            return torch.tensor(entry["values"]).reshape(entry["shape"])
        if entry["transform"] not in TRANSFORMS:
            raise ValueError(f"{self.name}: input {name} has the unknown transform {entry['transform']!r}")
        return TRANSFORMS[entry["transform"]](normal_rounded(entry["rng_key"], tuple(entry["shape"])))

    @functools.cached_property
    def arrays(self) -> dict[str, Tensor]:
        """What the case's own npz holds."""
        return load_arrays(self.folder.path / self.entry["file"])

    def output(self, name: str) -> Tensor:
        """Return a stored output in float32."""
        return self.arrays[f"out__{name}"].reshape(self.outputs[name]["shape"]).float()

    def mask(self, key: str) -> Tensor:
        """Unpack a stored mask (True means attend); several cases may share one copy."""
        entry = self.entry["masks"][key]
        file, array = entry.get("stored_in", (self.entry["file"], f"mask__{key}"))
        arrays = self.arrays if file == self.entry["file"] else load_arrays(self.folder.path / file)
        return unpack_mask(arrays[array], tuple(entry["shape"]))

    def parameters(self, part: str) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of a sub-module's parameters, buffers left out."""
        return {name: tuple(shape) for name, shape, kind in self.folder.keys[f"{self.name}:{part}"] if kind == "param"}

    @property
    def geometry(self) -> dict[str, Any]:
        """What the index says of the case's geometry."""
        return self.folder.index["geometries"][self.hyper_parameters["geometry"]]

    @property
    def condition_frame(self) -> Tensor:
        """The conditioning frame of every sample, the case's own or the geometry's."""
        return torch.tensor(self.inputs.get("cond_frame_index", self.geometry["cond_frame_index"]))

    def cameras(self) -> Cameras:
        """Build the cameras of the case's geometry, translations in their own unit."""
        name = self.hyper_parameters["geometry"]
        matrices = self.folder.geometries[f"{name}__K"].double()
        fx, fy = matrices[..., 0, 0], matrices[..., 1, 1]
        world_to_camera = self.folder.geometries[f"{name}__RT_w2c"].double()[..., :3, :]
        height, width = self.geometry["image_hw"]
        return Cameras(
            world_to_camera=world_to_camera,
            intrinsics_pixels=torch.stack([fx, fy, matrices[..., 0, 2], matrices[..., 1, 2]], -1),
            translation_scale=torch.ones(world_to_camera.shape[:2], dtype=torch.float64),
            height=height,
            width=width,
        )


class PublishedDraws(Draws):
    """Returns a case's published numbers instead of draws."""

    def __init__(self, case: ModelCase) -> None:
        self.case = case

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Return the noise of the geometry's perturbation."""
        assert purpose == "epipolar_perturbation", purpose
        batch = len(self.case.geometry["cond_frame_index"])
        key = f"geom/{self.case.hyper_parameters['geometry']}/perturb"
        return normal_rounded(key, (batch, *shape, 1))[..., 0]


def find_model_cases(models_folder: Path) -> list[ModelCase]:
    """List the cases of a `models` folder in the order of its index. Raises ValueError where it is no such folder."""
    folder = ModelsFolder(models_folder)
    return [ModelCase(name=name, folder=folder) for name in folder.index["cases"]]


def checksum(values: Tensor) -> np.ndarray:
    """Condense a tensor to its sixteen published numbers."""
    x = values.detach().contiguous().double().flatten().numpy()
    phase = 0.1 * np.arange(len(x))
    moments = [x.mean(), x.std(), x.min(), x.max(), np.abs(x).mean(), np.linalg.norm(x)]
    waves = [np.mean(x * np.cos(phase)), np.mean(x * np.sin(phase))]
    return np.array([*moments, *waves, *(x[j * (len(x) - 1) // 7] for j in range(8))])


def compare_checksum(
    checks: Checks, name: str, ours: Tensor, entry: dict[str, Any], *, tolerance: float = CHECKSUM
) -> bool:
    """Compare a tensor with a stored shape and checksum; return whether they agree."""
    if list(ours.shape) != entry["shape"]:
        checks.at_most(f"{name}: shape {list(ours.shape)}, not {entry['shape']}", float("inf"), 0.0)
        return False
    norm = entry["checksum"][5]
    scale = np.full(16, max(norm / np.sqrt(max(ours.numel(), 1)), 1e-30))
    scale[5] = max(norm, 1e-30)
    error = float(np.max(np.abs(checksum(ours) - np.array(entry["checksum"])) / scale))
    checks.at_most(f"{name} (checksum)", error, tolerance)
    return error <= tolerance


def compare_output(
    checks: Checks,
    case: ModelCase,
    name: str,
    ours: Tensor,
    *,
    label: str = "",
    relative: float = RELATIVE,
    maximum: float = MAXIMUM,
) -> None:
    """Compare a tensor with a stored output, `label` in the report."""
    checks.close(label or name, ours.detach().float(), case.output(name), relative=relative, maximum=maximum)
    compare_checksum(checks, label or name, ours, case.outputs[name], tolerance=maximum)


def compare_tap(checks: Checks, case: ModelCase, name: str, ours: Tensor) -> None:
    """Compare an intermediate tensor with its stored checksum, where the case has one."""
    if name in case.taps:
        compare_checksum(checks, f"tap {name}", ours, case.taps[name])
