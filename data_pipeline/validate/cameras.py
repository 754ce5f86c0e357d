"""Checks of a clip's cameras alone: poses, intrinsics, timestamps, metric scale, motion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float64, Int64

from data_pipeline.validate.findings import Check, Observation

Poses = Float64[np.ndarray, "frames 3 4"]
Intrinsics = Float64[np.ndarray, "frames 4"]

_RIGID_WITHIN = 1e-3
_STEADY_WITHIN = 0.01
_STILL_TRANSLATION = 1e-4  # pose units
_STILL_DEGREES = 0.1
_JUMP_OVER_OTHERS = 10.0
_JUMP_OVER_NEIGHBOURS = 4.0
_JUMP_DEGREES = 10.0


def check_poses(world_to_camera: Poses) -> Iterator[Observation]:
    """Look for numbers that are not finite and rotations that are none; one observation each, of the first frame."""
    finite = np.isfinite(world_to_camera).all(axis=(1, 2))
    if not finite.all():
        frames = np.flatnonzero(~finite)
        yield Observation(Check.POSE_NOT_FINITE, f"NaN or infinity in {len(frames)} poses", int(frames[0]))
    rotations = np.where(finite[:, None, None], world_to_camera[:, :, :3], np.eye(3))
    error = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    determinant = np.linalg.det(rotations)
    wrong = np.flatnonzero((error > _RIGID_WITHIN) | (determinant < 0))
    if wrong.size:
        first = int(wrong[0])
        found = f"R R^T off by {error[first]:.2g}, det R {determinant[first]:.2g}, in {len(wrong)} poses"
        yield Observation(Check.ROTATION_NOT_RIGID, found, first)


def check_intrinsics(intrinsics: Intrinsics, height: int, width: int) -> Iterator[Observation]:
    """Look for intrinsics in pixels, out of range, or changing the shape of a pixel along the clip."""
    focal, principal = intrinsics[:, :2], intrinsics[:, 2:]
    with np.errstate(invalid="ignore"):
        plausible = ((focal >= 0.1) & (focal <= 10)).all(1) & ((principal >= 0) & (principal <= 1)).all(1)
    if not plausible.all():
        first = int(np.flatnonzero(~plausible)[0])
        in_pixels = bool((intrinsics[first] > 10).all())
        shown = " ".join(f"{value:g}" for value in intrinsics[first])
        check = Check.INTRINSICS_NOT_NORMALIZED if in_pixels else Check.INTRINSICS_IMPLAUSIBLE
        yield Observation(check, f"fx fy cx cy = {shown}", first)
        return
    ratios = intrinsics[:, 1] * height / (intrinsics[:, 0] * width)
    middle = float(np.median(ratios))
    off = np.abs(ratios / middle - 1)
    if off.max() > _STEADY_WITHIN or not 0.5 <= middle <= 2:
        found = f"pixels {ratios.min():.3g} to {ratios.max():.3g} times as wide as high"
        yield Observation(Check.INTRINSICS_IMPLAUSIBLE, found, int(off.argmax()))


def pixel_aspect(intrinsics: Intrinsics, height: int, width: int) -> float:
    """Return the width over the height of a pixel: what makes both focal lengths equal in square pixels."""
    return float(np.median(intrinsics[:, 1] * height / (intrinsics[:, 0] * width)))


def check_timestamps(timestamps_microseconds: Int64[np.ndarray, " frames"]) -> Iterator[Observation]:
    """Look for frames that are not after the one before."""
    wrong = np.flatnonzero(np.diff(timestamps_microseconds) <= 0)
    if wrong.size:
        first = int(wrong[0])
        before, after = timestamps_microseconds[first : first + 2] / 1e6
        yield Observation(Check.TIMESTAMPS_NOT_INCREASING, f"{after:.6f} s after {before:.6f} s", first + 1)


def check_metric_scale(metric_scale: Float[np.ndarray, " values"], frames: int) -> Iterator[Observation]:
    """Look for scales that are not positive numbers, one per frame."""
    if len(metric_scale) != frames:
        yield Observation(Check.METRIC_SCALE_MALFORMED, f"{len(metric_scale)} values for {frames} frames")
        return
    wrong = np.flatnonzero(~(np.isfinite(metric_scale) & (metric_scale > 0)))
    if wrong.size:
        first = int(wrong[0])
        yield Observation(Check.METRIC_SCALE_MALFORMED, f"{metric_scale[first]:g} metres per unit", first)


def check_motion(world_to_camera: Poses) -> Iterator[Observation]:
    """Look for cameras that stay where they are, and for single steps out of all proportion."""
    if len(world_to_camera) < 2:
        return
    steps, turns = motion(world_to_camera)
    centres = camera_centres(world_to_camera)
    extent = float(np.linalg.norm(centres - centres[0], axis=1).max())
    if extent < _STILL_TRANSLATION and turns.sum() < _STILL_DEGREES:
        yield Observation(Check.STILL_CAMERA, f"moves {extent:.2g} units and turns {turns.sum():.2g} degrees in all")
        return
    for name, values, floor in (("units", steps, 0.01 * extent), ("degrees", turns, _JUMP_DEGREES)):
        jump = _jump(values, floor)
        if jump is not None:
            others = (values.sum() - values[jump]) / (len(values) - 1)
            found = f"{values[jump]:.3g} {name} from the frame before, {others:.2g} elsewhere on average"
            yield Observation(Check.JUMPING_CAMERA, found, jump + 1)


def motion(world_to_camera: Poses) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
    """Return the distance (pose units) and the turn (degrees) from each frame to the next."""
    rotation = world_to_camera[:, :, :3]
    steps = np.linalg.norm(np.diff(camera_centres(world_to_camera), axis=0), axis=1)
    cosine = (np.einsum("fij,fij->f", rotation[1:], rotation[:-1]) - 1) / 2
    return steps, np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def camera_centres(world_to_camera: Poses) -> Float64[np.ndarray, "frames 3"]:
    """Return where the cameras are in the world."""
    return -np.einsum("fji,fj->fi", world_to_camera[:, :, :3], world_to_camera[:, :, 3])


def _jump(values: Float64[np.ndarray, " steps"], floor: float) -> int | None:
    """Return the largest step if it stands out from all the others and from its neighbours."""
    if len(values) < 4:
        return None
    largest = int(values.argmax())
    others = (values.sum() - values[largest]) / (len(values) - 1)
    neighbours = max(values[max(largest - 1, 0)] if largest else 0.0, *values[largest + 1 : largest + 2], 0.0)
    limit = max(floor, _JUMP_OVER_OTHERS * others, _JUMP_OVER_NEIGHBOURS * neighbours)
    return largest if values[largest] > limit else None
