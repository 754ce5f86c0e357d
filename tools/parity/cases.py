"""Reads folders of published numbers: `<case>.json` (parameters, shapes, tolerances) beside `<case>.npz` (arrays)."""

from __future__ import annotations

import functools
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Arrays(dict[str, Tensor]):
    """The arrays of a case; notes which ones were looked at, so that none is forgotten."""

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        super().__init__(arrays)
        self.unread = set(arrays)

    def __getitem__(self, name: str) -> Tensor:
        self.unread.discard(name)
        return super().__getitem__(name)


@dataclass(frozen=True)
class Case:
    """Parameters and arrays of one case; arrays are read on first use."""

    name: str
    folder: Path

    @property
    def family(self) -> str:
        """What the case is about: the part of its name before the first double underscore."""
        return self.name.split("__")[0]

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """The content of `<case>.json`."""
        return json.loads((self.folder / f"{self.name}.json").read_text())

    @functools.cached_property
    def arrays(self) -> Arrays:
        """The content of `<case>.npz`, empty where there is none."""
        return Arrays(load_arrays(self.folder / f"{self.name}.npz"))

    @property
    def key(self) -> str:
        """The name of the case in the keys of its random inputs."""
        return str(self.parameters.get("case", self.name.replace("__", "/")))

    @property
    def split(self) -> str:
        """The word that stands for this folder in the keys of random inputs, where a case does not spell it."""
        return folder_split(self.folder)

    def __getitem__(self, array: str) -> Tensor:
        return self.arrays[array]

    def stated_tolerance(self, default: float, *, after: str = "") -> float:
        """Return the first number of the form 1e-4 in the case's `tol` (behind the word `after`), else `default`."""
        text = str(self.parameters.get("tol", ""))
        found = re.search(r"\d+(\.\d+)?e-\d+", text[max(text.find(after), 0) :])
        return float(found.group()) if found else default

    def stated(self, pattern: str, *, of: str = "what") -> tuple[str, ...]:
        """Return the groups that a pattern finds in one of the case's texts. Raises ValueError where it finds none."""
        found = re.search(pattern, str(self.parameters.get(of, "")))
        if found is None:
            raise ValueError(f"{self.folder / self.name}.json: {of!r} does not say {pattern}, which the case needs")
        return found.groups()

    def sibling(self, name: str) -> Case:
        """Return another case of the folder. Raises ValueError where it is absent."""
        if not (self.folder / f"{name}.json").is_file():
            raise ValueError(f"{self.folder / name}.json: needed by case {self.name}, but absent")
        return Case(name=name, folder=self.folder)


def find_cases(folder: Path) -> list[Case]:
    """List the cases of a folder by name. Raises ValueError where it is no such folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give one in the format of shared/golden/cases")
    return [Case(name=path.stem, folder=folder) for path in sorted(folder.glob("*.json")) if path.stem != "index"]


@functools.cache
def folder_split(folder: Path) -> str:
    """Find the word a folder's random inputs are keyed by. Raises ValueError where no case spells it."""
    for path in sorted(folder.glob("*.json")):
        parameters = json.loads(path.read_text())
        if "split_name" in parameters:
            return str(parameters["split_name"])
        if "key_prefix" in parameters:
            return str(parameters["key_prefix"]).rsplit("/", 1)[-1]
    raise ValueError(f"{folder}: no case says split_name or key_prefix, so the keys of its random inputs are unknown")


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
    """Draw float64 standard normal inputs and round them to float32 (another stream; the rule of `models/`)."""
    return torch.from_numpy(np.asarray(generator(key).standard_normal(shape)).astype(np.float32))


def uniform(key: str, shape: tuple[int, ...]) -> Tensor:
    """Draw float64 uniform inputs."""
    return torch.from_numpy(generator(key).random(shape))


def unpack_mask(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Unpack `numpy.packbits` of a bool array; the last axis of `packed` was padded to whole bytes."""
    bits = np.unpackbits(packed.numpy(), axis=-1)
    return torch.from_numpy(bits.reshape(-1)[: int(np.prod(shape))].reshape(shape).astype(bool))
