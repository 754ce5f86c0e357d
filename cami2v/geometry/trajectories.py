"""Camera paths to sample along: named presets and trajectory files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from cami2v.geometry.cameras import as_homogeneous, interpolate_poses, invert_pose
from cami2v.geometry.rotations import axis_angle_to_matrix
from cami2v.geometry.timing import even_positions

ORBIT_RADIUS = 1.0
"""Distance from the first camera to the point an orbit circles around, in scene units."""

REALESTATE10K_COLUMNS = 19
MOTIONCTRL_COLUMNS = 12
MAX_HEADER_LINES = 3
"""RealEstate10K files start with the video's address; the published training metadata adds a path and a caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A camera path read from a file."""

    world_to_camera: Float64[Tensor, "frames 3 4"]
    intrinsics_normalized: Float64[Tensor, "frames 4"] | None
    """fx fy cx cy divided by image width and height; None where the format has none (MotionCtrl)."""


def preset(name: str, frames: int, extent: float) -> Float64[Tensor, "frames 4 4"]:
    """Make a named path of camera-to-world poses, relative to its first frame, at even speed.

    `extent` is the distance travelled in scene units for dolly, truck and pedestal, and the angle in radians for pan,
    tilt, roll (clockwise) and orbit. An orbit keeps the point ORBIT_RADIUS ahead of the first camera in the middle.

    Raises:
        ValueError: unknown name, or fewer than one frame.
    """
    if name not in PRESETS:
        raise ValueError(f"trajectory preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    if frames < 1:
        raise ValueError(f"trajectory preset {name!r} got frames={frames}; choose 1 or more")
    return PRESETS[name](torch.linspace(0, extent, frames, dtype=torch.float64))


def resample(trajectory: Trajectory, frames: int) -> Trajectory:
    """Spread `frames` cameras evenly over the path; rotations are interpolated on SO(3)."""
    poses = trajectory.world_to_camera
    positions = even_positions(poses.shape[0], frames)
    resampled = interpolate_poses(invert_pose(as_homogeneous(poses)), positions)
    intrinsics = trajectory.intrinsics_normalized
    if intrinsics is not None:
        lower, upper = positions.floor().long(), positions.ceil().long()
        intrinsics = torch.lerp(intrinsics[lower], intrinsics[upper], (positions - lower)[:, None])
    return Trajectory(world_to_camera=invert_pose(resampled)[:, :3], intrinsics_normalized=intrinsics)


def read_trajectory(path: str | Path) -> Trajectory:
    """Read a RealEstate10K pose file (.txt) or a MotionCtrl trajectory (.json), both world-to-camera.

    Raises:
        ValueError: the file is missing, of another kind, or holds anything but finite, rigid poses.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"trajectory file {path} does not exist; give a RealEstate10K .txt or a MotionCtrl .json file")
    readers: dict[str, Callable[[Path], Trajectory]] = {".txt": _read_realestate10k, ".json": _read_motionctrl}
    if path.suffix not in readers:
        raise ValueError(f"trajectory file {path} ends in {path.suffix!r}; allowed are .txt (RealEstate10K) and .json")
    trajectory = readers[path.suffix](path)
    _check_rigid(trajectory.world_to_camera, path)
    return trajectory


def _read_realestate10k(path: Path) -> Trajectory:
    lines = [line.split() for line in path.read_text().splitlines()]
    header = next((i for i, fields in enumerate(lines) if _is_numeric(fields, REALESTATE10K_COLUMNS)), None)
    if header is None or header > MAX_HEADER_LINES:
        raise ValueError(
            f"trajectory file {path}: no line of {REALESTATE10K_COLUMNS} numbers (timestamp, fx fy cx cy, two zeros, "
            f"3x4 world-to-camera) after at most {MAX_HEADER_LINES} header lines"
        )
    rows = []
    for number, fields in enumerate(lines[header:], start=header + 1):
        if not fields:
            continue
        if not _is_numeric(fields, REALESTATE10K_COLUMNS):
            raise ValueError(
                f"trajectory file {path} line {number}: expected {REALESTATE10K_COLUMNS} numbers, got {len(fields)} "
                "fields or text; repair or drop the line"
            )
        rows.append([float(field) for field in fields])
    table = torch.tensor(rows, dtype=torch.float64)
    return Trajectory(world_to_camera=table[:, 7:].reshape(-1, 3, 4), intrinsics_normalized=table[:, 1:5].contiguous())


def _read_motionctrl(path: Path) -> Trajectory:
    expected = f"a list of frames, each a list of {MOTIONCTRL_COLUMNS} numbers (row-major 3x4 world-to-camera)"
    try:
        rows = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"trajectory file {path} is not JSON ({error}); expected {expected}") from error
    well_formed = isinstance(rows, list) and rows and all(_is_pose_row(row) for row in rows)
    if not well_formed:
        raise ValueError(f"trajectory file {path}: expected {expected}")
    poses = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3, 4)
    return Trajectory(world_to_camera=poses, intrinsics_normalized=None)


def _is_numeric(fields: list[str], count: int) -> bool:
    try:
        return len(fields) == count and all(isinstance(float(field), float) for field in fields)
    except ValueError:
        return False


def _is_pose_row(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) == MOTIONCTRL_COLUMNS
        and all(isinstance(number, int | float) for number in row)
    )


def _check_rigid(world_to_camera: Float64[Tensor, "frames 3 4"], path: Path) -> None:
    # Mirrored poses (determinant -1) pass: some published trajectories are, and the mirror cancels in relative poses.
    rotation = world_to_camera[:, :, :3]
    deviation = (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().amax(dim=(1, 2))
    finite = torch.isfinite(world_to_camera).all(dim=2).all(dim=1)
    wrong = torch.nonzero(~finite | ~(deviation < 1e-2)).flatten().tolist()
    if wrong:
        raise ValueError(
            f"trajectory file {path}: {len(wrong)} of {len(finite)} poses, the first at frame {wrong[0]}, are not "
            "finite rigid transforms; the first three columns must be a rotation matrix"
        )


def _still(amount: Tensor) -> Tensor:
    return _move(amount, 0, 0, 0)


def _move(amount: Tensor, x: int, y: int, z: int) -> Tensor:
    poses = torch.eye(4, dtype=amount.dtype).repeat(len(amount), 1, 1)
    poses[:, :3, 3] = amount[:, None] * amount.new_tensor([x, y, z])
    return poses


def _turn(amount: Tensor, x: int, y: int, z: int) -> Tensor:
    poses = torch.eye(4, dtype=amount.dtype).repeat(len(amount), 1, 1)
    poses[:, :3, :3] = axis_angle_to_matrix(amount[:, None] * amount.new_tensor([x, y, z]))
    return poses


def _orbit(amount: Tensor, side: int) -> Tensor:
    poses = _turn(-side * amount, 0, 1, 0)
    centre = amount.new_tensor([0, 0, ORBIT_RADIUS])
    poses[:, :3, 3] = centre - ORBIT_RADIUS * poses[:, :3, 2]
    return poses


PRESETS: dict[str, Callable[[Tensor], Tensor]] = {
    "static": _still,
    "dolly_in": lambda amount: _move(amount, 0, 0, 1),
    "dolly_out": lambda amount: _move(amount, 0, 0, -1),
    "truck_left": lambda amount: _move(amount, -1, 0, 0),
    "truck_right": lambda amount: _move(amount, 1, 0, 0),
    "pedestal_up": lambda amount: _move(amount, 0, -1, 0),
    "pedestal_down": lambda amount: _move(amount, 0, 1, 0),
    "pan_left": lambda amount: _turn(amount, 0, -1, 0),
    "pan_right": lambda amount: _turn(amount, 0, 1, 0),
    "tilt_up": lambda amount: _turn(amount, 1, 0, 0),
    "tilt_down": lambda amount: _turn(amount, -1, 0, 0),
    "roll": lambda amount: _turn(amount, 0, 0, 1),
    "orbit_left": lambda amount: _orbit(amount, -1),
    "orbit_right": lambda amount: _orbit(amount, 1),
}
