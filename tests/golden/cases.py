"""Reads cases of published numbers: `<case>.json` (parameters, shapes, tolerances) beside `<case>.npz` (arrays).

The folder is `$CAMI2V_GOLDEN`, by default ../shared/golden next to the repository.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[2]


def golden_folder() -> Path:
    """Locate the folder; skip the calling test where it is absent."""
    folder = Path(os.environ.get("CAMI2V_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no published numbers at {folder} (set CAMI2V_GOLDEN)")
    return folder


@dataclass(frozen=True)
class Case:
    """Parameters and arrays of one case."""

    name: str
    parameters: dict[str, Any]
    arrays: dict[str, Tensor]

    def __getitem__(self, array: str) -> Tensor:
        return self.arrays[array]


def load_case(name: str, subfolder: str = "cases") -> Case:
    """Load `<name>.json` and, where there is one, `<name>.npz`; skip the calling test where the case is absent."""
    path = golden_folder() / subfolder / name
    description = path.with_name(f"{name}.json")
    if not description.is_file():
        pytest.skip(f"no published numbers {description}")
    arrays = load_arrays(path.with_name(f"{name}.npz"))
    return Case(name=name, parameters=json.loads(description.read_text()), arrays=arrays)


def load_arrays(path: Path) -> dict[str, Tensor]:
    """Load an npz as tensors; empty where the file is absent."""
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.ascontiguousarray(arrays[key]).reshape(arrays[key].shape)) for key in arrays}


def generator(key: str) -> np.random.Generator:
    """Make the generator that stands for inputs which are not stored."""
    return np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))


def normal(key: str, shape: tuple[int, ...]) -> Tensor:
    """Draw float32 standard normal inputs."""
    return torch.from_numpy(generator(key).standard_normal(shape, dtype=np.float32))


def normal_rounded(key: str, shape: tuple[int, ...]) -> Tensor:
    """Draw float64 standard normal inputs and round them to float32 (another stream; the rule of `cases/models`)."""
    return torch.from_numpy(np.asarray(generator(key).standard_normal(shape)).astype(np.float32))


def uniform(key: str, shape: tuple[int, ...]) -> Tensor:
    """Draw float64 uniform inputs."""
    return torch.from_numpy(generator(key).random(shape))


def unpack_mask(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Unpack `numpy.packbits` of a bool array; the last axis of `packed` was padded to whole bytes."""
    bits = np.unpackbits(packed.numpy(), axis=-1)
    return torch.from_numpy(bits.reshape(-1)[: int(np.prod(shape))].reshape(shape).astype(bool))
