"""Cases of relative poses, fundamental matrices and Pluecker maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cami2v.geometry.cameras import as_homogeneous, invert_pose, relative_poses, scaled_relative_poses
from cami2v.geometry.epipolar import fundamental_matrices, pairwise_poses
from cami2v.geometry.rays import pluecker_map
from tools.parity.cases import Case
from tools.parity.checks import Checks
from tools.parity.stored_cameras import (
    as_vector,
    cameras_of,
    compare_up_to_scale,
    condition_frames,
    pairs_with_parallax,
)

SCALE_KEY = "trace_scale_factor"


def relative(case: Case) -> Checks:
    """Compare relative poses of every kind the case stores, pairs of frames and fundamental matrices."""
    world_to_camera, matrix = case["w2c"], case["K"] if "K" in case.arrays else None
    batch, frames = world_to_camera.shape[:2]
    condition = condition_frames(case, batch)
    cameras = cameras_of(world_to_camera, matrix)
    checks, tolerance = Checks(), case.stated_tolerance(1e-4)
    ours = _relative(case, condition)
    for name in ours.keys() & case.arrays.keys():
        checks.close(name, ours[name].float(), case[name], maximum=tolerance)
    if "rel_left_scaled" in case.arrays:
        # RealCam-I2V's metric scale: that of the conditioning frame, for all frames.
        metric = torch.ones(batch, frames, dtype=torch.float64)
        metric[torch.arange(batch), condition] = _trace_scale(case)
        scaled = scaled_relative_poses(cameras_of(world_to_camera, matrix, metric), condition, 1.0)
        checks.close("rel_left_scaled by a metric scale", scaled, case["rel_left_scaled"], maximum=tolerance)
    if "F" in case.arrays:
        fundamental_ours = fundamental_matrices(
            ours["rel_left"].float(), cameras.intrinsics_pixels, perturbation=None, key_intrinsics_on_both_sides=True
        )
        apart = pairs_with_parallax(ours["rel_left"])
        maximum = case.stated_tolerance(1e-3, after="F:")
        compare_up_to_scale(checks, "F", fundamental_ours[apart], case["F"][apart], maximum=maximum)
    return checks


def _relative(case: Case, condition: Tensor) -> dict[str, Tensor]:
    cameras = cameras_of(case["w2c"])
    poses = as_homogeneous(cameras.world_to_camera)
    inverse = invert_pose(poses)
    clips = torch.arange(poses.shape[0])
    left = relative_poses(cameras.world_to_camera, condition)
    ours = {
        "c2w": inverse,
        "rel_left": left,
        # No model uses this order; it checks the inverse.
        "rel_right": inverse @ poses[clips, condition].unsqueeze(1),
        # The published normalisation cancels in the product.
        "rel_left_normT0": left,
        "pairs": pairwise_poses(left.float()),
    }
    if any(name.startswith(SCALE_KEY) for name in case.parameters):
        ours["rel_left_scaled"] = scaled_relative_poses(cameras, condition, _trace_scale(case))
        ours["RT12"] = invert_pose(ours["rel_left_scaled"])[:, :, :3].flatten(2)
    return ours


def _trace_scale(case: Case) -> float:
    return next(float(value) for name, value in case.parameters.items() if name.startswith(SCALE_KEY))


def fundamental(case: Case) -> Checks:
    """Compare fundamental matrices while the focal length changes, with the key frame's intrinsics on both sides."""
    (see,) = case.stated(r"([\w/]+) for", of="see")
    first, last = (float(number) for number in case.stated(r"linspace\(([\d.]+),\s*([\d.]+)"))
    source = case.sibling(see.replace("/", "__"))
    world_to_camera, intrinsics = source["w2c"], as_vector(source["K"]).clone()
    batch, frames = world_to_camera.shape[:2]
    intrinsics[..., :2] *= torch.linspace(first, last, frames)[:, None]
    poses = relative_poses(cameras_of(world_to_camera).world_to_camera, condition_frames(source, batch)).float()
    theirs = case["F"]
    stored = theirs.shape[1]
    strides = [stride for stride in range(1, frames + 1) if math.ceil(frames / stride) == stored]
    if not strides:
        raise ValueError(f"{case.name}: stores {stored} of {source.name}'s {frames} frames at no constant stride")
    candidates = []
    # The case does not say which frames it stores; a wrong stride is off by orders of magnitude.
    for stride in strides:
        ours = fundamental_matrices(
            poses[:, ::stride], intrinsics[:, ::stride], perturbation=None, key_intrinsics_on_both_sides=True
        )
        checks, apart = Checks(), pairs_with_parallax(poses[:, ::stride])
        compare_up_to_scale(checks, f"F of every {stride}. frame", ours[apart], theirs[apart], maximum=1e-3)
        candidates.append(checks)
    return min(candidates, key=lambda checks: checks.worst.error)


def pluecker(case: Case) -> Checks:
    """Compare Pluecker maps; the image size is the stored map's."""
    poses, theirs = case["c2w_rel"], case["plucker"]
    height, width = theirs.shape[-2:]
    intrinsics = as_vector(case["K"]).expand(*poses.shape[:2], 4)
    checks = Checks()
    ours = pluecker_map(poses, intrinsics, height, width)
    checks.close("plucker", ours, theirs, maximum=case.stated_tolerance(2e-5))
    return checks
