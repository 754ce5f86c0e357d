"""Changes to a camera path: when its camera is where, and in which unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from cami2v.geometry.timing import bezier_progress
from cami2v.trajectories.trajectory import CameraPath, Progress, Shot

EASINGS = {
    "ease_in": (0.42, 0.0, 1.0, 1.0),
    "ease_out": (0.0, 0.0, 0.58, 1.0),
    "ease_in_out": (0.42, 0.0, 0.58, 1.0),
    "published": (0.5, 0.0, 0.5, 1.0),
}
"""Control points x1 y1 x2 y2 as in CSS; `published` is the default of the published demo."""


def part(path: CameraPath, start: float, end: float) -> CameraPath:
    """Keep what lies between two points; backwards where the second comes first. Raises ValueError outside 0 to 1."""
    if not (0 <= start <= 1 and 0 <= end <= 1):
        raise ValueError(f"part=[{start}, {end}]: choose two numbers from 0 (its start) to 1 (its end)")
    return _timed(path, lambda progress: start + (end - start) * progress, path.frames)


def backwards(path: CameraPath) -> CameraPath:
    """Start where the path ends."""
    return _timed(path, lambda progress: 1 - progress, path.frames)


def eased(path: CameraPath, control: tuple[float, float, float, float]) -> CameraPath:
    """Follow a Bezier curve of progress over time, control points x1 y1 x2 y2. Raises ValueError outside 0 to 1."""
    if not all(0 <= number <= 1 for number in control):
        raise ValueError(f"ease={list(control)}: choose numbers from 0 to 1, or one of {', '.join(EASINGS)}")
    return _timed(path, lambda progress: bezier_progress(progress, control), path.frames)


def looped(path: CameraPath) -> CameraPath:
    """Go there and back; the camera arrives where it began."""
    frames = None if path.frames is None else 2 * path.frames - 1
    return _timed(path, lambda progress: 1 - (2 * progress % 2 - 1).abs(), frames)


def paced(path: CameraPath, speed: float, *, repeats: bool) -> CameraPath:
    """Travel `speed` times as fast: below 1 only the first part, above 1 until the end and wait there.

    A path that `repeats` (a loop) starts again instead. Raises ValueError for a speed that is not above 0.
    """
    if not speed > 0:
        raise ValueError(f"speed={speed}: choose a number above 0")

    def faster(progress: Progress) -> Progress:
        return progress * speed if repeats else (progress * speed).clamp(max=1)

    return _timed(path, faster, path.frames)


def enlarged(path: CameraPath, factor: float) -> CameraPath:
    """Multiply all translations."""

    def at(progress: Progress) -> Shot:
        shot = path.at(progress)
        poses = shot.camera_to_world.clone()
        poses[:, :3, 3] *= factor
        return replace(shot, camera_to_world=poses)

    return CameraPath(at=at, frames=path.frames)


def mix(paths: list[CameraPath]) -> CameraPath:
    """Do several motions at once, each relative to its own start and in the axes of the camera that those before made.

    Zooms multiply; intrinsics are those of the first path that knows its own.
    """

    def at(progress: Progress) -> Shot:
        shots = [_from_start(path, progress) for path in paths]
        poses, zoom = shots[0].camera_to_world, shots[0].zoom
        for shot in shots[1:]:
            poses, zoom = poses @ shot.camera_to_world, zoom * shot.zoom
        known = [shot.intrinsics_normalized for shot in shots if shot.intrinsics_normalized is not None]
        return Shot(camera_to_world=poses, zoom=zoom, intrinsics_normalized=known[0] if known else None)

    counts = [path.frames for path in paths if path.frames is not None]
    return CameraPath(at=at, frames=max(counts) if counts else None)


def sequence(paths: list[CameraPath], shares: list[float]) -> CameraPath:
    """Do motions one after the other, each for its share of the time, each from where the last one stopped.

    Raises ValueError for a share that is not above 0.
    """
    if not all(share > 0 for share in shares):
        raise ValueError(f"share: got {shares}, choose numbers above 0")
    bounds = torch.tensor([0.0, *shares], dtype=torch.float64).cumsum(0) / sum(shares)

    def at(progress: Progress) -> Shot:
        poses = torch.empty(len(progress), 4, 4, dtype=torch.float64)
        zoom = torch.ones(len(progress), dtype=torch.float64)
        intrinsics: list[Float64[Tensor, "frames 4"] | None] = []
        which = torch.searchsorted(bounds[1:-1].contiguous(), progress, right=True)
        pose, factor = torch.eye(4, dtype=torch.float64), 1.0
        for number, path in enumerate(paths):
            own = (progress - bounds[number]) / (bounds[number + 1] - bounds[number])
            shot = _from_start(path, torch.cat([own.clamp(0, 1), own.new_ones(1)]))
            here = which == number
            poses[here], zoom[here] = pose @ shot.camera_to_world[:-1][here], factor * shot.zoom[:-1][here]
            pose, factor = pose @ shot.camera_to_world[-1], factor * float(shot.zoom[-1])
            intrinsics.append(None if shot.intrinsics_normalized is None else shot.intrinsics_normalized[:-1])
        known = next((each for each in intrinsics if each is not None), None)
        return Shot(camera_to_world=poses, zoom=zoom, intrinsics_normalized=known)

    counts = [path.frames for path in paths]
    total = None if None in counts else sum(count for count in counts if count is not None) - len(paths) + 1
    return CameraPath(at=at, frames=total)


def _timed(path: CameraPath, when: Callable[[Progress], Progress], frames: int | None) -> CameraPath:
    return CameraPath(at=lambda progress: path.at(when(progress)), frames=frames)


def _from_start(path: CameraPath, progress: Progress) -> Shot:
    """Return the cameras relative to the first, whose zoom is 1."""
    shot = path.at(torch.cat([progress.new_zeros(1), progress]))
    start = torch.linalg.inv(shot.camera_to_world[0])
    intrinsics = shot.intrinsics_normalized
    return Shot(
        camera_to_world=start @ shot.camera_to_world[1:],
        zoom=shot.zoom[1:] / shot.zoom[0],
        intrinsics_normalized=None if intrinsics is None else intrinsics[1:],
    )
