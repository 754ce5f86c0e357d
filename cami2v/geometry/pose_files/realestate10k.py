"""RealEstate10K camera files, which CameraCtrl and VideoX-Fun share.

Up to three header lines (the video's address; the published training metadata adds its path and a caption), then one
line of 19 numbers per frame: timestamp in microseconds, fx fy cx cy divided by image width and height, two zeros, and
the row-major 3x4 world-to-camera matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cami2v.geometry.pose_files.base import Fault, PosedFrames, PoseFileError, check_rigid, read_text

NUMBERS = 19
_WHAT = f"a video address, then {NUMBERS} numbers per frame (timestamp, fx fy cx cy, two zeros, 3x4 world-to-camera)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFile:
    """The content of one file, as it stands there."""

    header: tuple[str, ...]
    rows: Float64[np.ndarray, "frames numbers"]
    lines: tuple[int, ...]
    """Where each row stands, from 1."""

    @property
    def intrinsics_normalized(self) -> Float64[np.ndarray, "frames 4"]:
        """Return fx fy cx cy."""
        return np.ascontiguousarray(self.rows[:, 1:5])

    @property
    def world_to_camera(self) -> Float64[np.ndarray, "frames 3 4"]:
        """Return the poses."""
        return np.ascontiguousarray(self.rows[:, 7:].reshape(-1, 3, 4))


def parse(path: Path) -> CameraFile:
    """Read header and numbers, unchecked but for being finite; raises PoseFileError with file and line."""
    text = read_text(path, _WHAT).splitlines()
    lines = [(number, line.strip()) for number, line in enumerate(text, 1) if line.strip()]
    if not lines:
        raise PoseFileError(Fault.MALFORMED, f"{path}: empty; expected {_WHAT}")
    headers = _headers([line for _, line in lines])
    if len(lines) <= headers:
        raise PoseFileError(
            Fault.MALFORMED,
            f"{path}: no line of {NUMBERS} numbers after at most {headers} header lines; expected {_WHAT}",
        )
    return CameraFile(
        header=tuple(line for _, line in lines[:headers]),
        rows=camera_rows(lines[headers:], path),
        lines=tuple(number for number, _ in lines[headers:]),
    )


def camera_rows(lines: Sequence[tuple[int, str]], path: Path) -> Float64[np.ndarray, "frames numbers"]:
    """Parse numbered lines of 19 finite numbers, empty ones left out; raises PoseFileError."""
    rows = [_row(line.split(), path, number) for number, line in lines if line.strip()]
    if not rows:
        raise PoseFileError(Fault.MALFORMED, f"{path}: no line of {NUMBERS} numbers; expected one per frame")
    return np.stack(rows)


def read(path: Path) -> PosedFrames:
    """Read the cameras of a file; raises PoseFileError."""
    content = parse(path)
    check_rigid(content.world_to_camera, path)
    return PosedFrames(
        world_to_camera=content.world_to_camera,
        intrinsics_normalized=content.intrinsics_normalized,
        times_seconds=content.rows[:, 0] / 1e6,
    )


def write(path: Path, frames: PosedFrames) -> None:
    """Write cameras that have intrinsics and times, every digit of them."""
    assert frames.intrinsics_normalized is not None
    assert frames.times_seconds is not None
    lines = ["cami2v"]
    for time, intrinsics, pose in zip(
        frames.times_seconds, frames.intrinsics_normalized, frames.world_to_camera, strict=True
    ):
        numbers = [*intrinsics.tolist(), 0, 0, *pose.reshape(-1).tolist()]
        lines.append(" ".join([str(round(time * 1e6)), *map(repr, numbers)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _headers(lines: list[str]) -> int:
    if len(lines[0].split()) == NUMBERS and _looks_numeric(lines[0]):
        return 0
    # A caption may begin with a number, so the third line says nothing.
    return 1 if len(lines) > 1 and _looks_numeric(lines[1]) else 3


def _looks_numeric(line: str) -> bool:
    first = line.split()[0]
    return first.lstrip("+-").replace(".", "", 1).isdigit()


def _row(fields: list[str], path: Path, number: int) -> Float64[np.ndarray, " numbers"]:
    if len(fields) != NUMBERS:
        raise PoseFileError(Fault.MALFORMED, f"{path} line {number}: {len(fields)} fields, expected {NUMBERS}")
    try:
        row = np.array([float(value) for value in fields])
    except ValueError as error:
        raise PoseFileError(Fault.MALFORMED, f"{path} line {number}: {error}") from error
    if not np.all(np.isfinite(row)):
        raise PoseFileError(Fault.NOT_FINITE, f"{path} line {number}: the camera has a NaN or infinite number")
    return row
