"""Cases of the camera metrics."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from cami2v.evaluation.camera_metrics import EXTENT_EPSILON, camera_errors, relative_to_first, translation_extent
from cami2v.geometry.cameras import as_homogeneous, invert_pose
from tools.parity.cases import Case
from tools.parity.checks import Checks

ROTATION, OTHERS = 1e-6, 1e-9
"""Tolerances, relative above 1 and absolute below: acos next to 1 amplifies rounding."""


def camera_metrics(case: Case) -> Checks:
    """Compare the five published metrics, each frame's errors and the paths they are computed from."""
    checks = Checks()
    for pair in case.parameters["pairs"]:
        clip, other = pair["clip"], pair["other"]
        truth, perturbed = case[f"{clip}_w2c"], case[f"{clip}_pert_w2c"]
        rows = {
            "self": published_row(truth, truth),
            "pert": published_row(truth, perturbed),
            "other": published_row(truth, case[f"{other}_w2c"]),
        }
        for name in case.arrays:
            scaled_by = re.fullmatch(rf"{re.escape(clip)}_metric_pert_scaled_([\d.]+)_([\d.]+)", name)
            if scaled_by:
                scales = (float(scaled_by[1]), float(scaled_by[2]))
                rows[name.removeprefix(f"{clip}_metric_")] = published_row(truth, perturbed, scales)
        for name, row in rows.items():
            compare_row(checks, f"{clip} {name}", row, case[f"{clip}_metric_{name}"])
            if isinstance(pair.get(name), list):
                compare_row(checks, f"{clip} {name} (json)", row, torch.tensor(pair[name], dtype=torch.float64))
        _compare_frames(checks, case, clip)
    first = case[f"{case.parameters['pairs'][0]['clip']}_w2c"]
    motionless = torch.eye(4, dtype=torch.float64)[:3].expand(len(first), 3, 4)
    compare_row(checks, "static_vs_first", published_row(motionless, first), case["static_vs_first"])
    compare_row(checks, "first_vs_static", published_row(first, motionless), case["first_vs_static"])
    return checks


def _compare_frames(checks: Checks, case: Case, clip: str) -> None:
    truth, perturbed = case[f"{clip}_w2c"], case[f"{clip}_pert_w2c"]
    errors = camera_errors(truth, perturbed)
    relative, relative_perturbed = relative_to_first(truth), relative_to_first(perturbed)
    extent = translation_extent(relative)
    world_to_camera = as_homogeneous(truth)
    ours = {
        "rot_per_frame": errors.rotation_radians,
        "trans_per_frame": errors.translation,
        "cammc_per_frame": errors.cammc,
        "rel_left": relative,
        # No metric uses this order; it checks the inverse.
        "rel_right": invert_pose(world_to_camera) @ world_to_camera[0],
        "norm": divided(relative, extent),
        "pert_norm_by_gt": divided(relative_perturbed, extent),
    }
    for name, values in ours.items():
        tolerance = ROTATION if name == "rot_per_frame" else OTHERS
        theirs = case[f"{clip}_{name}"]
        checks.elementwise(f"{clip} {name}", values, theirs, relative=tolerance, absolute=tolerance)


def compare_row(checks: Checks, name: str, ours: Tensor, theirs: Tensor) -> None:
    """Compare the five metrics, the rotation's with its own tolerance."""
    checks.elementwise(f"{name} RotErr", ours[:1], theirs[:1], relative=ROTATION, absolute=ROTATION)
    checks.elementwise(f"{name} others", ours[1:], theirs[1:], relative=OTHERS, absolute=OTHERS)


def published_row(truth: Tensor, estimate: Tensor, scales: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Order the metrics as the cases do: RotErr, TransErr_rel, CamMC_rel, TransErr_abs, CamMC_abs.

    `scales` multiply the translations of both paths before anything else.
    """
    pairs = zip((truth, estimate), scales, strict=True)
    paths = [torch.cat([path[..., :3], by * path[..., 3:]], dim=-1) for path, by in pairs]
    relative = camera_errors(paths[0], paths[1]).published()
    absolute = camera_errors(paths[0], paths[1], unit="first").published()
    return torch.stack([*relative.values(), absolute["TransErr_sum"], absolute["CamMC_sum"]])


def divided(relative: Tensor, extent: Tensor) -> Tensor:
    """Divide translations by a path's extent."""
    result = relative.clone()
    result[..., :3, 3] /= extent + EXTENT_EPSILON
    return result
