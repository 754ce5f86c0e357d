"""Camera files by clip, for videos that somebody else made: which there are, and the cameras of frames of a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64

from cami2v.evaluation.folder import RequestedCameras, read_requested
from cami2v.geometry.framing import frame_intrinsics, framing_for
from cami2v.geometry.pose_files.base import PosedFrames
from cami2v.geometry.pose_files.formats import FORMATS, format_of

Framing = Literal["crop", "squash"]
"""`crop`: frames have square pixels and are the largest centre crop of what the camera file's intrinsics describe.
`squash`: they are all of it, whatever its aspect."""
STORED = ".npz"
"""Of the cameras/ of an evaluation's folder."""
SUFFIXES = (".txt", ".json", ".tum", STORED)


def camera_files(folder: Path) -> dict[str, Path]:
    """Find <clip>.<suffix> and <split>/<clip>.<suffix>; raises ValueError for none, and for two of one clip."""
    if not folder.is_dir():
        raise ValueError(f"cameras={folder}: no such folder; expected camera files <clip>.txt (docs/evaluate.md)")
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if path.suffix not in SUFFIXES or path.name.startswith("."):
            continue
        if (other := found.setdefault(path.stem, path)) != path:
            raise ValueError(f"cameras={folder}: {path} and {other} are both of clip {path.stem}; keep one")
    if not found:
        raise ValueError(f"cameras={folder}: no camera files; expected <clip> with one of {', '.join(SUFFIXES)}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFile:
    """The cameras of one file."""

    path: Path
    read: PosedFrames | RequestedCameras

    @property
    def world_to_camera(self) -> Float64[np.ndarray, "frames 3 4"]:
        """All its poses."""
        return self.read.world_to_camera

    def chosen(self, indices: Sequence[int]) -> list[int]:
        """Return which of its cameras belong to frames of these numbers; an evaluation stored the chosen ones only."""
        count = len(self.world_to_camera)
        if isinstance(self.read, RequestedCameras) and count == len(indices):
            return list(range(count))
        if max(indices) >= count:
            raise ValueError(f"{self.path}: {count} cameras, but frame {max(indices)} is asked for")
        return list(indices)

    def requested(self, chosen: list[int], height: int, width: int, framing: Framing) -> RequestedCameras:
        """Return the chosen cameras for frames of this size. Raises ValueError where intrinsics do not say."""
        if isinstance(self.read, RequestedCameras):
            intrinsics, metric = self._stored(self.read, height, width), self.read.metric
            scale = self.read.translation_scale[chosen]
        else:
            intrinsics, metric = self._framed(self.read, height, width, framing), False
            scale = np.ones(len(chosen))
        return RequestedCameras(
            world_to_camera=np.ascontiguousarray(self.world_to_camera[chosen]),
            intrinsics_pixels=np.ascontiguousarray(intrinsics[chosen]),
            translation_scale=scale,
            height=height,
            width=width,
            metric=metric,
        )

    def _stored(self, read: RequestedCameras, height: int, width: int) -> Float64[np.ndarray, "frames 4"]:
        if (read.height, read.width) != (height, width):
            raise ValueError(
                f"{self.path}: for frames of {read.height}x{read.width} (height x width), the videos have "
                f"{height}x{width}; give videos of that size, or the original camera files"
            )
        return read.intrinsics_pixels

    def _framed(self, read: PosedFrames, height: int, width: int, framing: Framing) -> Float64[np.ndarray, "frames 4"]:
        if read.intrinsics_normalized is None:
            raise ValueError(
                f"{self.path}: has no focal lengths, which estimating a path takes; give RealEstate10K's .txt or "
                "transforms.json (cami2v trajectory convert)"
            )
        normalized = read.intrinsics_normalized
        if framing == "squash":
            return normalized * np.array([width, height, width, height], dtype=np.float64)
        # Of what the intrinsics describe only the aspect matters, and square pixels give it away: fx W = fy H.
        original_height = 100_000
        original_width = round(original_height * float(normalized[0, 1] / normalized[0, 0]))
        moved = framing_for(original_height, original_width, (height, width))
        return frame_intrinsics(torch.from_numpy(normalized), moved).numpy()


def read_camera_file(path: Path) -> CameraFile:
    """Read a file in any of the formats we have; raises ValueError for one in none of them."""
    if path.suffix == STORED:
        return CameraFile(path=path, read=read_requested(path))
    form = format_of(path)
    if form is None:
        raise ValueError(f"{path}: not a camera file in any format we know ({', '.join(FORMATS)})")
    return CameraFile(path=path, read=FORMATS[form].read(path))
