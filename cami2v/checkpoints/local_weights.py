"""Weights of the networks that videos are judged by: where they lie, and whether they are the released ones."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from cami2v.checkpoints.released_files import find_released
from cami2v.file_hash import file_sha256

FETCHED = Path("weights")
"""Where `cami2v weights fetch` puts files, below the current folder."""


class LocalWeights:
    """One weights file: the user's, or where the released one is put when it is fetched.

    `sha256` is what the user expects; None expects the released file's, where that is known. `key` names the config
    node, for messages.
    """

    def __init__(self, *, released: str, path: str | Path | None, sha256: str | None, key: str) -> None:
        self.released = find_released(released)
        self.path = (
            Path(path).expanduser()
            if path is not None
            else FETCHED / self.released.repository / (self.released.file or "FILE")
        )
        self.expected = sha256.lower() if sha256 is not None else self.released.sha256
        self.key = key

    def check(self) -> Path:
        """Return the file. Raises ValueError in one line where it is absent, or not the expected one."""
        if not self.path.is_file():
            raise ValueError(
                f"{self.key}: no weights at {self.path}; get them with `cami2v weights fetch {self.released.name}`, or "
                f"name a file with {self.key}.weights=FILE"
            )
        if self.expected is not None and self.found != self.expected:
            raise ValueError(
                f"{self.key}: {self.path} has sha256 {self.found}, not the expected {self.expected}; another network's "
                f"numbers cannot be compared: fetch {self.released.name} again, or accept this file with "
                f"{self.key}.sha256={self.found}"
            )
        return self.path

    @cached_property
    def found(self) -> str:
        """The file's sha256."""
        return file_sha256(self.path)

    def describe(self) -> dict[str, str | bool]:
        """Return what a result says of the weights. Raises ValueError as `check`."""
        self.check()
        known = self.found == self.released.sha256
        return {"weights": self.released.name if known else self.path.name, "weights_sha256": self.found}
