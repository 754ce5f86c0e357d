"""Camera motions by name. Each starts at the identity.

`pan`, `look`, `zoom` and `rotate` are the published demo's words, and mean what its files do: pan moves sideways or up,
look turns, zoom moves ahead. `dolly`, `truck`, `pedestal`, `tilt` and `roll` are the film's.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from cami2v.geometry.rotations import axis_angle_to_matrix
from cami2v.trajectories.handheld import shaken
from cami2v.trajectories.trajectory import CameraPath, Progress, Shot

SUBJECT_DISTANCE = 1.0
"""Where the subject of orbits, arcs, spirals and dolly zooms is, ahead of the first camera, in scene units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """What a preset is asked for."""

    extent: float
    distance: float
    turns: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named motion."""

    does: str
    extent: float
    """Unless told otherwise."""
    unit: Literal["scene units", "radians", "-"]
    """Of the extent."""
    at: Callable[[Progress, Motion], Shot]


def preset_path(
    name: str,
    *,
    extent: float | None = None,
    distance: float = SUBJECT_DISTANCE,
    turns: float = 2.0,
    seed: int = 0,
) -> CameraPath:
    """Make the path of a preset. `distance` is its subject's, `turns` a spiral's, `seed` a hand's.

    Raises ValueError for an unknown name, or a dolly zoom that reaches its subject.
    """
    known = preset_named(name)
    motion = Motion(extent=known.extent if extent is None else extent, distance=distance, turns=turns, seed=seed)
    if not distance > 0:
        raise ValueError(f"trajectory preset {name!r}: distance={distance}; choose a number above 0")
    if canonical(name).startswith("dolly_zoom") and not abs(motion.extent) < distance:
        raise ValueError(
            f"trajectory preset {name!r}: extent={motion.extent} reaches the subject; choose less than its "
            f"distance={distance}, or a larger distance"
        )
    return CameraPath(at=lambda progress: known.at(progress, motion), frames=None)


def preset(name: str, frames: int, extent: float) -> Float64[Tensor, "frames 4 4"]:
    """Sample the camera-to-world poses of a preset at even speed.

    Raises ValueError for an unknown name, or fewer than one frame.
    """
    path = preset_path(name, extent=extent)
    if frames < 1:
        raise ValueError(f"trajectory preset {name!r} got frames={frames}; choose 1 or more")
    return path.at(torch.linspace(0, 1, frames, dtype=torch.float64)).camera_to_world


def canonical(name: str) -> str:
    """Return the name a preset is listed under: `zoom in` and `stationary` are known too."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return ALIASES.get(plain, plain)


def preset_named(name: str) -> Preset:
    """Find a preset; raises ValueError with all names for another one."""
    if canonical(name) not in PRESETS:
        close = difflib.get_close_matches(canonical(name), PRESETS, n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"trajectory preset {name!r} is unknown{guess}; choose one of {', '.join(PRESETS)}")
    return PRESETS[canonical(name)]


def look_at(
    position: Float64[Tensor, "*batch 3"], target: Float64[Tensor, "*batch 3"]
) -> Float64[Tensor, "*batch 3 3"]:
    """Turn cameras to a target, their x axis level. Raises ValueError straight above, below or at the target."""
    ahead = target - position
    down = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand_as(ahead)
    right = torch.linalg.cross(down, ahead)
    if bool((right.norm(dim=-1) < 1e-9 * ahead.norm(dim=-1).clamp_min(1e-9)).any()):
        raise ValueError("look_at: a camera at its target, or straight above or below it, has no way to face; move it")
    z, x = (axis / axis.norm(dim=-1, keepdim=True) for axis in (ahead, right))
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def turned(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Float64[Tensor, "*batch 3 3"]:
    """Turn by radians: yaw to the right, then pitch up, then roll clockwise."""
    zero = torch.zeros_like(yaw)
    about = [torch.stack(axis, dim=-1) for axis in ((zero, yaw, zero), (pitch, zero, zero), (zero, zero, roll))]
    first, second, third = (axis_angle_to_matrix(axis) for axis in about)
    return first @ second @ third


def _shot(progress: Progress, rotation: Tensor | None, centre: Tensor | None, zoom: Tensor | None = None) -> Shot:
    poses = torch.eye(4, dtype=torch.float64).repeat(len(progress), 1, 1)
    if rotation is not None:
        poses[:, :3, :3] = rotation
    if centre is not None:
        poses[:, :3, 3] = centre
    return Shot(camera_to_world=poses, zoom=torch.ones_like(progress) if zoom is None else zoom)


def _move(x: int, y: int, z: int) -> Callable[[Progress, Motion], Shot]:
    def at(progress: Progress, motion: Motion) -> Shot:
        return _shot(progress, None, (progress * motion.extent)[:, None] * progress.new_tensor([x, y, z]))

    return at


def _turn(yaw: int, pitch: int, roll: int) -> Callable[[Progress, Motion], Shot]:
    def at(progress: Progress, motion: Motion) -> Shot:
        amount = progress * motion.extent
        return _shot(progress, turned(yaw * amount, pitch * amount, roll * amount), None)

    return at


def _orbit(side: int, up: int, arch: float = 0.0) -> Callable[[Progress, Motion], Shot]:
    """Go round the subject: to a side (+1 right), up (+1), and over an arch of so many extents on the way."""

    def at(progress: Progress, motion: Motion) -> Shot:
        amount = progress * motion.extent
        rise = up * amount + arch * motion.extent * torch.sin(math.pi * progress)
        rotation = turned(-side * amount, -rise, torch.zeros_like(amount))
        subject = progress.new_tensor([0, 0, motion.distance])
        return _shot(progress, rotation, subject - motion.distance * rotation[:, :, 2])

    return at


def _spiral(progress: Progress, motion: Motion) -> Shot:
    radius, angle = progress * motion.extent, 2 * math.pi * motion.turns * progress
    centre = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.zeros_like(radius)], dim=-1)
    subject = progress.new_tensor([0, 0, motion.distance]).expand_as(centre)
    return _shot(progress, look_at(centre, subject), centre)


def _dolly_zoom(way: int) -> Callable[[Progress, Motion], Shot]:
    def at(progress: Progress, motion: Motion) -> Shot:
        ahead = way * motion.extent * progress
        centre = ahead[:, None] * progress.new_tensor([0, 0, 1])
        return _shot(progress, None, centre, (motion.distance - ahead) / motion.distance)

    return at


def _handheld(progress: Progress, motion: Motion) -> Shot:
    shake = shaken(progress, motion.seed) * motion.extent
    turns = shake[:, 3:] / motion.distance
    return _shot(progress, axis_angle_to_matrix(turns), shake[:, :3])


def _moves(does: str, x: int, y: int, z: int) -> Preset:
    return Preset(does=does, extent=0.5, unit="scene units", at=_move(x, y, z))


def _turns(does: str, yaw: int, pitch: int, roll: int) -> Preset:
    return Preset(does=does, extent=0.4, unit="radians", at=_turn(yaw, pitch, roll))


def _orbits(does: str, side: int, up: int, arch: float = 0.0) -> Preset:
    return Preset(does=does, extent=0.5, unit="radians", at=_orbit(side, up, arch))


def _dolly_zooms(does: str, way: int) -> Preset:
    return Preset(does=does, extent=0.4, unit="scene units", at=_dolly_zoom(way))


PRESETS: dict[str, Preset] = {
    "static": Preset(does="stands still", extent=0.0, unit="-", at=lambda progress, _: _shot(progress, None, None)),
    "zoom_in": _moves("moves ahead", 0, 0, 1),
    "zoom_out": _moves("moves back", 0, 0, -1),
    "dolly_in": _moves("moves ahead", 0, 0, 1),
    "dolly_out": _moves("moves back", 0, 0, -1),
    "pan_left": _moves("moves to the left", -1, 0, 0),
    "pan_right": _moves("moves to the right", 1, 0, 0),
    "pan_up": _moves("moves up", 0, -1, 0),
    "pan_down": _moves("moves down", 0, 1, 0),
    "truck_left": _moves("moves to the left", -1, 0, 0),
    "truck_right": _moves("moves to the right", 1, 0, 0),
    "pedestal_up": _moves("moves up", 0, -1, 0),
    "pedestal_down": _moves("moves down", 0, 1, 0),
    "look_left": _turns("turns to the left", -1, 0, 0),
    "look_right": _turns("turns to the right", 1, 0, 0),
    "look_up": _turns("turns up", 0, 1, 0),
    "look_down": _turns("turns down", 0, -1, 0),
    "tilt_up": _turns("turns up", 0, 1, 0),
    "tilt_down": _turns("turns down", 0, -1, 0),
    "rotate_clockwise": _turns("rolls clockwise", 0, 0, 1),
    "rotate_counterclockwise": _turns("rolls counter-clockwise", 0, 0, -1),
    "roll": _turns("rolls clockwise", 0, 0, 1),
    "orbit_left": _orbits("goes round the subject to the left, facing it", -1, 0),
    "orbit_right": _orbits("goes round the subject to the right, facing it", 1, 0),
    "orbit_up": _orbits("goes over the subject, facing it", 0, 1),
    "orbit_down": _orbits("goes under the subject, facing it", 0, -1),
    "arc_left": _orbits("orbits to the left, rising to half the angle and sinking again", -1, 0, 0.5),
    "arc_right": _orbits("orbits to the right, rising to half the angle and sinking again", 1, 0, 0.5),
    "spiral": Preset(
        does="turns in growing circles up to the radius, facing the subject", extent=0.2, unit="scene units", at=_spiral
    ),
    "dolly_zoom_in": _dolly_zooms("moves ahead and widens the view: the subject keeps its size", 1),
    "dolly_zoom_out": _dolly_zooms("moves back and narrows the view: the subject keeps its size", -1),
    "handheld": Preset(
        does="shakes like a hand: root mean square, and as many radians per distance", extent=0.02,
        unit="scene units", at=_handheld,
    ),
}  # fmt: skip

ALIASES = {
    "stationary": "static", "arc": "arc_right", "dolly_zoom": "dolly_zoom_in", "rotate_cw": "rotate_clockwise",
    "rotate_ccw": "rotate_counterclockwise", "rotate_right": "rotate_clockwise",
    "rotate_left": "rotate_counterclockwise",
}  # fmt: skip
"""Other names in use."""
