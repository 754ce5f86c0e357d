"""Released weights under our names and back, bit for bit: nothing that a released file holds is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cami2v.checkpoints.named_weights import FULL_WEIGHTS, LEFT_OVER, NamedWeights, open_weights
from cami2v.checkpoints.released_names import released_names, to_our_shape, to_released_shape
from cami2v.checkpoints.safetensors_files import write_safetensors
from cami2v.checkpoints.write_torch import write_torch

Layout = tuple[torch.dtype, tuple[int, ...]]

SOURCES = "released_sources"
"""Metadata: names and hashes of the released files, as JSON."""

IRREGULAR = "released_irregular"
"""Metadata: our name to the released name and shape, as JSON, where the rules would give another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsOut:
    """What will be written: layouts now, one tensor when it is asked for."""

    read: Callable[[str], Tensor]
    tensors: dict[str, Layout]
    metadata: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write .safetensors, or a torch file with the weights under `state_dict`; ValueError for another suffix."""
        if path.suffix == ".safetensors":
            write_safetensors(path, self.tensors, self.read, self.metadata)
        elif path.suffix in (".pt", ".ckpt", ".bin"):
            write_torch(path, self.tensors, self.read, "state_dict")
        else:
            raise ValueError(f"{path}: expected a name that ends in .safetensors, .pt, .ckpt or .bin")


def to_ours(files: Sequence[Path]) -> WeightsOut:
    """Translate released files, a later one winning over an earlier; left-overs keep their names under a prefix.

    Raises ValueError for names that no released model has.
    """
    opened = [open_weights(path) for path in files]
    places: dict[str, tuple[NamedWeights, str]] = {}
    for weights in opened:
        if weights.archive.metadata.get("format") == FULL_WEIGHTS:
            raise ValueError(f"{weights.path}: is under our names already")
        if weights.unknown:
            more = f" (and {len(weights.unknown) - 1} more)" if len(weights.unknown) > 1 else ""
            raise ValueError(f"{weights.path}: {weights.unknown[0]}{more} is of no released model known here")
        places |= {name: (weights, stored) for name, stored in weights.ours.items()}
        places |= {f"{LEFT_OVER}{stored}": (weights, stored) for stored in weights.unused}
    stored = {name: weights.archive.tensors[released] for name, (weights, released) in places.items()}
    tensors = {name: (entry.dtype, _our_shape(name, entry.shape)) for name, entry in stored.items()}
    regular = released_layout(tensors)
    irregular = {
        name: [released, list(stored[name].shape)]
        for name, (_, released) in places.items()
        if regular[name] != (released, stored[name].shape)
    }
    sources = [{"file": weights.path.name, "sha256": weights.archive.sha256()} for weights in opened]

    def read(name: str) -> Tensor:
        weights, released = places[name]
        return to_our_shape(name, weights.archive.read(released))

    return WeightsOut(
        read=read,
        tensors=tensors,
        metadata={"format": FULL_WEIGHTS, SOURCES: json.dumps(sources), IRREGULAR: json.dumps(irregular)},
    )


def to_released(path: Path) -> WeightsOut:
    """Translate a file of ours back. Raises ValueError for one that is not under our names, or was never released."""
    weights = open_weights(path)
    if weights.archive.metadata.get("format") != FULL_WEIGHTS:
        raise ValueError(f"{path}: not written by to-ours or export (no metadata format {FULL_WEIGHTS})")
    entries = weights.archive.tensors
    layout = released_layout({name: (entry.dtype, entry.shape) for name, entry in entries.items()})
    irregular = json.loads(weights.archive.metadata.get(IRREGULAR, "{}"))
    layout |= {name: (released, tuple(shape)) for name, (released, shape) in irregular.items()}
    ours = {released: name for name, (released, _) in layout.items()}

    def read(released: str) -> Tensor:
        return weights.archive.read(ours[released]).reshape(layout[ours[released]][1])

    return WeightsOut(
        read=read,
        tensors={released: (entries[name].dtype, shape) for name, (released, shape) in layout.items()},
    )


def released_layout(tensors: Mapping[str, Layout]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the released name and shape of every tensor under our names.

    Raises ValueError for a name that no released checkpoint has.
    """
    translated = released_names(name for name in tensors if not name.startswith(LEFT_OVER))
    names = {name: translated.get(name, name.removeprefix(LEFT_OVER)) for name in tensors}
    return {name: (names[name], _released_shape(name, shape)) for name, (_, shape) in tensors.items()}


def left_overs(files: Iterable[Path]) -> dict[str, tuple[NamedWeights, str]]:
    """Find what released files hold and no model has, by the name it gets among ours."""
    opened = [open_weights(path) for path in files]
    return {f"{LEFT_OVER}{stored.removeprefix(LEFT_OVER)}": (each, stored) for each in opened for stored in each.unused}


def _our_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(to_our_shape(name, torch.empty(shape, device="meta")).shape)


def _released_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(to_released_shape(name, torch.empty(shape, device="meta")).shape)
