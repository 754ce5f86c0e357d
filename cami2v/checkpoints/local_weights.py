"""Weights of the networks that videos are judged by: where they lie, and whether they are the released ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cami2v.checkpoints.released_files import find_released
from cami2v.file_hash import file_sha256

FETCHED = Path("weights")
"""Where `cami2v weights fetch` puts files, below the current folder."""


@dataclass(frozen=True, kw_only=True)
class LocalWeights:
    """One weights file that must be there, and be the right one."""

    name: str
    """What a result calls it, where it is the expected one."""
    path: Path
    expected: str | None
    """How its sha256 starts; None: nobody has said."""
    key: str
    """The config node, for messages; its `weights` and `sha256` are `path` and `expected`."""
    remedy: str
    """A command that gets it."""

    def check(self) -> Path:
        """Return the file. Raises ValueError in one line where it is absent, or not the expected one."""
        if not self.path.is_file():
            raise ValueError(
                f"{self.key}: no weights at {self.path}; get them with `{self.remedy}`, or name a file with "
                f"{self.key}.weights=FILE"
            )
        if self.expected is not None and not self.found.startswith(self.expected):
            raise ValueError(
                f"{self.key}: {self.path} has sha256 {self.found}, not the expected {self.expected}; another network's "
                f"numbers cannot be compared: get {self.name} again, or accept this file with "
                f"{self.key}.sha256={self.found}"
            )
        return self.path

    @cached_property
    def found(self) -> str:
        """The file's sha256."""
        return file_sha256(self.path)

    def describe(self) -> dict[str, str]:
        """Return what a result says of the weights. Raises ValueError as `check`."""
        return {"weights": self.check().name, "weights_sha256": self.found}


def released_weights(released: str, *, path: str | Path | None, sha256: str | None, key: str) -> LocalWeights:
    """Return a released file, or the user's in its place.

    Without `path`, it is where `cami2v weights fetch` puts it; without `sha256`, its hash is the released one's, where
    that is known.
    """
    file = find_released(released)
    return LocalWeights(
        name=file.name,
        path=Path(path).expanduser() if path is not None else FETCHED / file.repository / (file.file or "FILE"),
        expected=sha256.lower() if sha256 is not None else file.sha256,
        key=key,
        remedy=f"cami2v weights fetch {file.name}",
    )
