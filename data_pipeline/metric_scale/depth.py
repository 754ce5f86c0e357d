"""Where metric depth comes from. This package knows no network: launch/data_scale.py puts one in."""

from __future__ import annotations

import hashlib
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

DepthMaps = Float32[np.ndarray, "frames rows columns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthFrames:
    """Frames of one clip whose depth is wanted."""

    clip_id: str
    split: str | None
    numbers: tuple[int, ...]
    """Of the frames, in the clip."""
    images: UInt8[np.ndarray, "frames height width 3"]
    """Pixels square."""


class DepthSource(ABC):
    """Gives depth in metres along the optical axis."""

    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """Return what identifies the source, as plain JSON values: part of the recorded procedure."""

    @abstractmethod
    def stamp(self, clip_id: str, split: str | None) -> str:
        """Return what identifies the source's own data of one clip; empty where it has none."""

    @abstractmethod
    def __call__(self, frames: DepthFrames) -> DepthMaps:
        """Return depth maps of any resolution over the whole of each frame; raises ValueError where there are none."""


class StoredDepthMaps(DepthSource):
    """Depth maps of another program, or of the synthetic world: [<split>/]<clip>.npz in a folder.

    Each holds `depth_millimetres` (frames, rows, columns), 0 where depth is unknown, one map per camera of the clip.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(
                f"depth_maps={folder}: no such folder; expected [<split>/]<clip>.npz (docs/metric-scale.md)"
            )
        self.folder = folder

    def description(self) -> Mapping[str, Any]:
        """Name the kind; which files were read stands with each clip."""
        return {"kind": "stored depth maps", "folder": self.folder.name}

    def stamp(self, clip_id: str, split: str | None) -> str:
        """Return the checksum of the clip's file."""
        path = self._find(clip_id, split)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""

    def __call__(self, frames: DepthFrames) -> DepthMaps:
        """Read the maps of these frames."""
        path = self._find(frames.clip_id, frames.split)
        if path is None:
            raise ValueError(f"{self.folder}: has no depth maps of clip {frames.clip_id}")
        try:
            with np.load(path, allow_pickle=False) as file:
                maps = file["depth_millimetres"]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: no array depth_millimetres to read ({error})") from error
        if maps.ndim != 3 or len(maps) <= max(frames.numbers):
            raise ValueError(
                f"{path}: shape {maps.shape}, expected (frames, rows, columns) with all frames of the clip"
            )
        return maps[list(frames.numbers)].astype(np.float32) / 1000

    def _find(self, clip_id: str, split: str | None) -> Path | None:
        name = f"{clip_id}.npz"
        places = [self.folder / split / name] if split else []
        places += [self.folder / name, *sorted(self.folder.glob(f"*/{name}"))]
        return next((path for path in places if path.is_file()), None)
