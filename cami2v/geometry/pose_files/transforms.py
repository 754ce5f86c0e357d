"""Camera files of NeRF, Instant-NGP and Nerfstudio: transforms.json, camera-to-world with Blender's (OpenGL) axes.

Intrinsics are `camera_angle_x` (radians), or `fl_x fl_y cx cy w h` in pixels, for the file or per frame. Of a lens
distortion nothing is taken. Without `h`, `fl_y` and `camera_angle_y` pictures are square, as in NeRF's own data set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from cami2v.geometry.pose_files.base import (
    Fault,
    PosedFrames,
    PoseFileError,
    camera_to_world,
    check_rigid,
    read_text,
)

FILE_NAME = "transforms.json"
_WHAT = '{"camera_angle_x": <radians>, "frames": [{"transform_matrix": <4x4 camera-to-world>}, ...]}'
_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def read(path: Path) -> PosedFrames:
    """Read the cameras of a file in the order in which it lists them; raises PoseFileError."""
    path = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(read_text(path, _WHAT))
    except json.JSONDecodeError as error:
        raise PoseFileError(Fault.MALFORMED, f"{path}: is not JSON ({error}); expected {_WHAT}") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise PoseFileError(Fault.MALFORMED, f"{path}: expected {_WHAT}")
    to_world = np.stack([_pose(frame, f"{path} frame {number}") for number, frame in enumerate(frames)])
    with np.errstate(all="ignore"):
        check_rigid(to_world[:, :3], path)
    known = [_intrinsics({**content, **frame}, f"{path} frame {number}") for number, frame in enumerate(frames)]
    times = [frame.get("time") for frame in frames]
    intrinsics = [each for each in known if each is not None]
    return PosedFrames(
        world_to_camera=np.linalg.inv(to_world @ _TO_OPENCV)[:, :3],
        intrinsics_normalized=np.stack(intrinsics) if len(intrinsics) == len(frames) else None,
        times_seconds=np.array(times, np.float64) if all(_is_number(time) for time in times) else None,
        names=tuple(str(frame.get("file_path", number)) for number, frame in enumerate(frames)),
        size=_size(content),
    )


def write(path: Path, frames: PosedFrames) -> None:
    """Write cameras that have intrinsics, a size and times, every digit of them."""
    intrinsics, size, times = frames.intrinsics_normalized, frames.size, frames.times_seconds
    assert intrinsics is not None
    assert size is not None
    assert times is not None
    height, width = size
    names = frames.names or tuple(f"{number:06d}" for number in range(len(times)))
    listed = []
    to_world = camera_to_world(frames.world_to_camera) @ _TO_OPENCV
    for name, time, (fx, fy, cx, cy), pose in zip(names, times, intrinsics.tolist(), to_world, strict=True):
        pixels = {"fl_x": fx * width, "fl_y": fy * height, "cx": cx * width, "cy": cy * height}
        listed.append({"file_path": name, "time": float(time), **pixels, "transform_matrix": pose.tolist()})
    first = intrinsics[0].tolist()
    angles = {"camera_angle_x": 2 * math.atan(0.5 / first[0]), "camera_angle_y": 2 * math.atan(0.5 / first[1])}
    content = {"camera_model": "PINHOLE", "w": width, "h": height, **angles, "frames": listed}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _pose(frame: Mapping[str, Any], where: str) -> Float64[np.ndarray, "4 4"]:
    try:
        matrix = np.array(frame.get("transform_matrix"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PoseFileError(Fault.MALFORMED, f"{where}: transform_matrix is not 4x4 numbers") from error
    if matrix.shape not in ((4, 4), (3, 4)):
        raise PoseFileError(Fault.MALFORMED, f"{where}: transform_matrix has shape {matrix.shape}, expected 4x4")
    pose = np.eye(4)
    pose[:3] = matrix[:3]
    return pose


def _intrinsics(values: Mapping[str, Any], where: str) -> Float64[np.ndarray, " 4"] | None:
    names = ("w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y")
    given = {name: values[name] for name in names if values.get(name) is not None}
    for name, value in given.items():
        if not _is_number(value) or value <= 0:
            raise PoseFileError(Fault.MALFORMED, f"{where}: {name} is {value!r}, expected a number above 0")
    width, height = given.get("w"), given.get("h")
    if "fl_x" in given and width:
        focal_x = given["fl_x"] / width
    elif "camera_angle_x" in given:
        focal_x = 0.5 / math.tan(given["camera_angle_x"] / 2)
    else:
        return None
    aspect = width / height if width and height else 1.0
    if "fl_y" in given and height:
        focal_y = given["fl_y"] / height
    elif "camera_angle_y" in given:
        focal_y = 0.5 / math.tan(given["camera_angle_y"] / 2)
    else:
        focal_y = focal_x * aspect
    centre_x = given["cx"] / width if "cx" in given and width else 0.5
    centre_y = given["cy"] / height if "cy" in given and height else 0.5
    return np.array([focal_x, focal_y, centre_x, centre_y], dtype=np.float64)


def _size(values: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = values.get("h"), values.get("w")
    if not _is_number(height) or not _is_number(width):
        return None
    return round(float(str(height))), round(float(str(width)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
