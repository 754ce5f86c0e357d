"""What loading did with every name: a summary for the terminal, a list for a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

Role = Literal["full", "base", "delta", "depth", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """One of the files that were loaded together."""

    path: Path
    role: Role
    layout: str
    tensors: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A parameter and the stored tensor it gets."""

    file: Path
    stored: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    becomes: torch.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A stored tensor that does not fit its parameter."""

    stored: str
    found: str
    needed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Key by key: what came from where, and what did not."""

    files: tuple[LoadedFile, ...]
    matched: dict[str, Match] = field(default_factory=dict)
    """By our name."""
    replaced: dict[str, Path] = field(default_factory=dict)
    """Our names whose value in this earlier file gave way to a later file's."""
    missing: dict[str, str] = field(default_factory=dict)
    """Our name to the released one."""
    unexpected: dict[str, Path] = field(default_factory=dict)
    """Stored name to its file."""
    mismatched: dict[str, Mismatch] = field(default_factory=dict)
    """By our name."""
    unused: dict[str, str] = field(default_factory=dict)
    """Stored name to the reason."""

    def summary(self) -> str:
        """Say in a few lines what was loaded."""
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        lines = [f"{len(self.matched)} of {total} parameters loaded"]
        taken = Counter(match.file for match in self.matched.values())
        for file in self.files:
            digest = f", sha256 {file.sha256}" if file.sha256 else ""
            lines.append(
                f"  {taken[file.path]} from {file.role} {file.path} ({file.tensors} tensors, {file.layout}{digest})"
            )
        conversions = Counter((m.dtype, m.becomes) for m in self.matched.values() if m.dtype is not m.becomes)
        counts = [
            *(f"{count} converted from {_plain(old)} to {_plain(new)}" for (old, new), count in conversions.items()),
            *([f"{len(self.replaced)} of the base replaced by the delta"] if self.replaced else []),
            f"{len(self.missing)} missing{' (new camera modules)' if self.missing else ''}",
            f"{len(self.unexpected)} unexpected",
            f"{len(self.mismatched)} of another shape",
            f"{len(self.unused)} stored tensors that no model uses",
        ]
        return "\n".join([*lines, "  " + ", ".join(counts)])

    def text(self) -> str:
        """Return the summary and one line per name."""
        return "\n".join([self.summary(), "", *self._names()]) + "\n"

    def _names(self) -> Iterator[str]:
        for name, match in self.matched.items():
            kind = (
                _plain(match.dtype)
                if match.dtype is match.becomes
                else f"{_plain(match.dtype)} -> {_plain(match.becomes)}"
            )
            yield f"matched     {name} <- {match.stored} {list(match.shape)} {kind} [{match.file.name}]"
        for name, path in self.replaced.items():
            yield f"replaced    {name} [{path.name}]"
        for name, released in self.missing.items():
            yield f"missing     {name} <- {released}"
        for name, path in self.unexpected.items():
            yield f"unexpected  {name} [{path.name}]"
        for name, mismatch in self.mismatched.items():
            yield f"mismatched  {name} <- {mismatch.stored}: {mismatch.found}, needed {mismatch.needed}"
        for name, reason in self.unused.items():
            yield f"unused      {name}: {reason}"


class RefusedWeightsError(ValueError):
    """Files that are not the weights of a model; `report` has the names."""

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
