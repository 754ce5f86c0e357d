"""Cases of the published demo's camera paths: interpolation entry by entry, easing, loops, excerpts."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from cami2v.geometry.cameras import invert_pose, scaled_relative_poses
from cami2v.geometry.timing import (
    bezier_curve,
    bezier_positions,
    even_positions,
    excerpt_positions,
    interpolate_matrices,
    there_and_back,
)
from tools.parity.cases import Case, find_cases
from tools.parity.checks import Checks
from tools.parity.stored_cameras import camera_to_world, cameras_of

DEFAULT_EASING = (0.5, 0.5)
STORED_OF_A_PATH = 12
"""Eased paths are stored thinned out to about this many poses."""


def interpolation(case: Case) -> Checks:
    """Compare linear and eased interpolation of every path, and the easing curves themselves."""
    checks, tolerance = Checks(), case.stated_tolerance(2e-6)
    easings = [_easing(pair) for pair in case.parameters["bezier"]]
    for file in case.parameters["files"]:
        name = file.replace(" ", "_")
        poses = camera_to_world(case[f"{name}_w2c"])
        for samples in case.parameters["lerp_counts"]:
            ours = interpolate_matrices(poses, even_positions(len(poses), samples))
            checks.close(f"{file} lerp{samples}", ours.float(), case[f"{name}_lerp{samples}"], maximum=tolerance)
        for index, easing in enumerate(easings):
            eased = interpolate_matrices(poses, bezier_positions(len(poses), *easing))
            thinned = eased[:: max(1, len(poses) // STORED_OF_A_PATH)]
            checks.close(f"{file} bez{index}", thinned.float(), case[f"{name}_bez{index}"], maximum=tolerance)
    for name in case.arrays:
        curve = re.fullmatch(r"bezier_curve_(\d+)_(\d+)", name)
        if curve:
            ours = bezier_curve(*easings[int(curve[1])], int(curve[2]))
            checks.close(name, ours, case[name], maximum=1e-12)
    return checks


def demo_paths(case: Case) -> Checks:
    """Compare the poses of every row, absolute and relative; where the demo runs out of poses, ours must not."""
    checks = Checks()
    frames = next((case[name].shape[0] for name in case.arrays if name.startswith("w2c_")), None)
    if frames is None:
        raise ValueError(f"{case.name}: stores no w2c_<row>, so the number of frames is unknown")
    for row in case.parameters["rows"]:
        name, ratio = f"row {row['i']}", row["trace_extract_ratio"]
        checks.equal(f"{name}: poses of the whole path", round(frames / ratio), row["lerp_frames"])
        whole = _whole_path(row, _poses(case, row["file"]))
        positions = excerpt_positions(len(whole), frames, ratio)
        poses = interpolate_matrices(whole, positions)
        if row["error"] is not None:
            checks.equal(f"{name}: frames", len(poses), frames)
            checks.equal(f"{name}: reaches the end of the path", float(positions[-1]), float(len(whole) - 1))
            continue
        world_to_camera = invert_pose(poses)
        checks.close(f"{name}: w2c", world_to_camera.float(), case[f"w2c_{row['i']}"], maximum=1e-5)
        condition = torch.tensor([row["cond_frame_index"]])
        relative = scaled_relative_poses(cameras_of(world_to_camera[None]), condition, row["trace_scale_factor"])
        checks.close(f"{name}: relative", relative[0, :, :3], case[f"rel_{row['i']}"], maximum=1e-4)
    return checks


def _whole_path(row: dict[str, Any], poses: Tensor) -> Tensor:
    if row["bezier"] is not None:
        poses = interpolate_matrices(poses, bezier_positions(len(poses), *_easing(row["bezier"])))
    return there_and_back(poses) if row["loop"] else poses


def _easing(pair: list[float | None]) -> tuple[float, float]:
    start, end = (default if value is None else value for value, default in zip(pair, DEFAULT_EASING, strict=True))
    return start, end


def _poses(case: Case, file: str) -> Tensor:
    """Find the path of a file in this case or in another one of its family. Raises ValueError where none stores it."""
    name = f"{file.replace(' ', '_')}_w2c"
    for source in (case, *(other for other in find_cases(case.folder) if other.family == case.family)):
        if name in source.arrays:
            return camera_to_world(source[name])
    raise ValueError(f"{case.folder}: no case of the family {case.family} stores {name}, which {case.name} needs")
