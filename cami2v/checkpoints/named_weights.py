"""The tensors of a weights file under our parameter names and in our shapes, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cami2v.checkpoints.archives import Archive, open_archive
from cami2v.checkpoints.released_names import our_names, to_our_shape

OUR_FORMATS = "cami2v-"
"""How the metadata entry `format` of files under our own names begins."""

FULL_WEIGHTS = "cami2v-weights-1"
"""Format of a converted or exported file: a whole model, or a base or delta, with its released left-overs."""

LEFT_OVER = "released_unused."
"""Before the names of what a released file holds and our models do not; kept so that conversion loses nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedWeights:
    """A weights file, its names translated."""

    archive: Archive
    ours: dict[str, str]
    """Our name to the stored one."""
    unused: dict[str, str]
    """Stored name to the reason why no model has it."""
    unknown: tuple[str, ...]
    """Stored names that no rule explains."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.archive.path

    @property
    def released(self) -> set[str]:
        """The released names of left-overs, whichever the format."""
        return {name.removeprefix(LEFT_OVER) for name in self.unused}

    def shape(self, our_name: str) -> tuple[int, ...]:
        """Return the shape the tensor will have in our model."""
        shape = self.archive.tensors[self.ours[our_name]].shape
        return tuple(to_our_shape(our_name, torch.empty(shape, device="meta")).shape)

    def dtype(self, our_name: str) -> torch.dtype:
        """Return the stored dtype."""
        return self.archive.tensors[self.ours[our_name]].dtype

    def read(self, our_name: str) -> Tensor:
        """Read one tensor in our shape."""
        return to_our_shape(our_name, self.archive.read(self.ours[our_name]))


def open_weights(path: Path) -> NamedWeights:
    """Open a released file, a DeepSpeed folder, or a file of ours. Raises ValueError in one line (see `open_archive`).

    Raises ValueError as well where two stored names mean one parameter.
    """
    archive = open_archive(path)
    if archive.metadata.get("format", "").startswith(OUR_FORMATS):
        names = list(archive.tensors)
        return NamedWeights(
            archive=archive,
            ours={name: name for name in names if not name.startswith(LEFT_OVER)},
            unused={name: "left over from the released file" for name in names if name.startswith(LEFT_OVER)},
            unknown=(),
        )
    translation = our_names(archive.tensors)
    ours: dict[str, str] = {}
    for stored, name in translation.ours.items():
        if name in ours:
            raise ValueError(f"{path}: {ours[name]} and {stored} are the same parameter; only one may be there")
        ours[name] = stored
    return NamedWeights(archive=archive, ours=ours, unused=translation.unused, unknown=translation.unknown)
