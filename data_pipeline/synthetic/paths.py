"""Smooth random camera paths through a room with RealEstate10K-like motion.

Six real clips of 16 frames, 8 apart at 30 frames per second: 0.24 to 0.71 units per second, the chord at least 0.75
times the path, five of six forwards; 1 to 12 degrees per second, nearly all of it yaw; 4 to 52 degrees in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float64

from data_pipeline.synthetic.rooms import Room

SPEED_METRES_PER_SECOND = (0.24, 0.7)
YAW_DEGREES_PER_SECOND = (2.0, 12.0)
EYE_HEIGHT_METRES = (1.2, 1.65)
WALL_CLEARANCE_METRES = 0.45
BOX_CLEARANCE_METRES = 0.35
VIEW_CLEARANCE_METRES = 0.9
"""Nothing may come nearer than this along any of the probing rays, so that a frame is never a single surface."""
ATTEMPTS_PER_SCALE = 25
SHRINK = 0.85

Curve: TypeAlias = tuple[Float64[np.ndarray, "frames 2"], Float64[np.ndarray, " frames"]]
"""Plan positions (x, z) relative to the start and yaw, for a camera that starts looking along +z."""


def _eased(rng: np.random.Generator, frames: int) -> Float64[np.ndarray, " frames"]:
    """Return progress from 0 to 1 with a speed that varies by up to a quarter."""
    t = np.linspace(0, 1, frames)
    return t + rng.uniform(-0.25, 0.25) * np.sin(np.pi * t) * np.cos(np.pi * t) / np.pi


def _spline(
    points: Float64[np.ndarray, "knots axes"], t: Float64[np.ndarray, " frames"]
) -> Float64[np.ndarray, "frames axes"]:
    """Evaluate a uniform Catmull-Rom spline through `points` at `t` in [0, 1]."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    position = np.clip(t, 0, 1) * (len(points) - 1)
    knot = np.minimum(position.astype(int), len(points) - 2)
    f = (position - knot)[:, None]
    a, b, c, d = (padded[knot + k] for k in range(4))
    return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _yaw_drift(
    rng: np.random.Generator, progress: Float64[np.ndarray, " frames"], limit: float
) -> Float64[np.ndarray, " frames"]:
    return rng.uniform(-limit, limit) * progress


def dolly(rng: np.random.Generator, frames: int, distance: float, yaw: float) -> Curve:
    """Move along the view, three times out of four forwards."""
    progress = _eased(rng, frames)
    sign = 1.0 if rng.random() < 0.75 else -1.0
    heading = rng.uniform(-0.25, 0.25)
    plan = sign * distance * progress[:, None] * [np.sin(heading), np.cos(heading)]
    return plan, _yaw_drift(rng, progress, 0.4 * yaw)


def truck(rng: np.random.Generator, frames: int, distance: float, yaw: float) -> Curve:
    """Move sideways."""
    progress = _eased(rng, frames)
    heading = _sign(rng) * np.pi / 2 + rng.uniform(-0.3, 0.3)
    plan = distance * progress[:, None] * [np.sin(heading), np.cos(heading)]
    return plan, _yaw_drift(rng, progress, 0.4 * yaw)


def pan(rng: np.random.Generator, frames: int, distance: float, yaw: float) -> Curve:
    """Turn, on a person's arm rather than on a tripod: the centre moves a quarter as far as in the other kinds."""
    progress = _eased(rng, frames)
    heading = rng.uniform(-np.pi, np.pi)
    plan = 0.25 * distance * progress[:, None] * [np.sin(heading), np.cos(heading)]
    return plan, _sign(rng) * yaw * progress


def orbit(rng: np.random.Generator, frames: int, distance: float, yaw: float) -> Curve:
    """Circle around a point ahead and keep looking at it."""
    radius = rng.uniform(1.8, 3.0)
    angle = _sign(rng) * distance / radius * _eased(rng, frames)
    return radius * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1), -angle


def mixture(rng: np.random.Generator, frames: int, distance: float, yaw: float) -> Curve:
    """Walk a gentle bend, mostly forwards, while turning at a changing rate."""
    progress = _eased(rng, frames)
    heading = rng.normal(0, 0.7) + (np.pi if rng.random() < 0.15 else 0.0) + np.cumsum(rng.normal(0, 0.3, 4))
    steps = distance / 4 * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    turns = np.cumsum(np.append(0.0, _sign(rng) * rng.uniform(0.2, 1.0, 4)))
    knots = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return _spline(knots, progress), _spline(yaw * turns[:, None] / max(abs(turns[-1]), 1.0), progress)[:, 0]


KINDS: dict[str, Callable[[np.random.Generator, int, float, float], Curve]] = {
    "dolly": dolly,
    "truck": truck,
    "pan": pan,
    "orbit": orbit,
    "mixture": mixture,
}


def _wander(
    rng: np.random.Generator, times: Float64[np.ndarray, " frames"], amplitude: float
) -> Float64[np.ndarray, " frames"]:
    """Return the slow unsteadiness of a hand-held camera: three sines below 1 Hz."""
    waves = np.zeros(len(times))
    for frequency in rng.uniform(0.15, 0.9, 3):
        waves += amplitude / 3 * np.sin(2 * np.pi * frequency * times + rng.uniform(0, 2 * np.pi))
    return waves


def _rotations(
    yaw: Float64[np.ndarray, " frames"], pitch: Float64[np.ndarray, " frames"], roll: Float64[np.ndarray, " frames"]
) -> Float64[np.ndarray, "frames 3 3"]:
    """Return camera-to-world rotations: yaw to the right, then pitch upwards, then roll clockwise."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def stacked(*entries: Float64[np.ndarray, " frames"]) -> Float64[np.ndarray, "frames 3 3"]:
        return np.stack(entries, axis=1).reshape(-1, 3, 3)

    c, s = np.cos(yaw), np.sin(yaw)
    turn = stacked(c, zero, s, zero, one, zero, -s, zero, c)
    c, s = np.cos(pitch), np.sin(pitch)
    tilt = stacked(one, zero, zero, zero, c, -s, zero, s, c)
    c, s = np.cos(roll), np.sin(roll)
    return turn @ tilt @ stacked(c, -s, zero, s, c, zero, zero, zero, one)


def _distances(room: Room, points: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, "points boxes"]:
    """Return distances of points to every box."""
    distances = np.full((len(points), max(1, len(room.boxes))), np.inf)
    for index, box in enumerate(room.boxes):
        distances[:, index] = np.linalg.norm(
            np.maximum(np.abs((points - box.centre) @ box.axes) - box.half_size, 0), axis=1
        )
    return distances


def free_positions(room: Room, points: Float64[np.ndarray, "points 3"]) -> Bool[np.ndarray, " points"]:
    """Tell which points keep clear of walls and furniture."""
    half = np.array([room.width, room.depth]) / 2 - WALL_CLEARANCE_METRES
    inside = (np.abs(points[:, [0, 2]]) <= half).all(1) & (points[:, 1] > -room.height + 0.3) & (points[:, 1] < -0.5)
    return inside & (_distances(room, points).min(1) > BOX_CLEARANCE_METRES)


def clear_view(room: Room, camera_to_world: Float64[np.ndarray, "frames 4 4"]) -> bool:
    """Tell whether rays ahead, to both sides and downwards see nothing too near, by marching along them."""
    rays = (
        np.array([[0, 0, 1], [-0.5, 0, 1], [0.5, 0, 1], [0, 0.3, 1], [-0.4, 0.25, 1], [0.4, 0.25, 1]])
        * VIEW_CLEARANCE_METRES
    )
    half = np.array([room.width, room.height, room.depth]) / 2
    middle = np.array([0, -room.height / 2, 0])
    directions = np.einsum("fij,rj->fri", camera_to_world[:, :3, :3], rays)
    for reach in (0.5, 0.75, 1.0):
        points = (camera_to_world[:, None, :3, 3] + reach * directions).reshape(-1, 3)
        if (np.abs(points - middle) > half).any() or (_distances(room, points) <= 0).any():
            return False
    ahead = camera_to_world[:, :3, 3] + 1.6 * camera_to_world[:, :3, 2]
    return bool((np.abs(ahead - middle) < half).all())


def _candidate(
    rng: np.random.Generator, room: Room, kind: str, times: Float64[np.ndarray, " frames"], extent: float
) -> Float64[np.ndarray, "frames 4 4"]:
    """Draw a path of the given kind from a random place and heading."""
    low, high = np.log(SPEED_METRES_PER_SECOND)
    seconds = float(times[-1] - times[0])
    distance = float(np.exp(rng.uniform(low, high))) * seconds * extent
    turn = float(np.deg2rad(rng.uniform(*YAW_DEGREES_PER_SECOND))) * seconds * extent
    plan, yaw = KINDS[kind](rng, len(times), distance, min(turn, np.pi / 2))
    start, heading = rng.uniform(-0.5, 0.5, 2) * [room.width, room.depth], rng.uniform(-np.pi, np.pi)
    c, s = np.cos(heading), np.sin(heading)
    eye, climb = rng.uniform(*EYE_HEIGHT_METRES), rng.normal(0, 0.05) * distance
    ramp = np.linspace(-0.5, 0.5, len(times))
    pitch = np.deg2rad(rng.normal(-5, 3)) + np.deg2rad(rng.normal(0, 2)) * ramp + _wander(rng, times, np.deg2rad(0.4))
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = _rotations(
        heading + yaw + _wander(rng, times, np.deg2rad(0.5)),
        pitch,
        np.deg2rad(rng.normal(0, 0.4)) + _wander(rng, times, np.deg2rad(0.2)),
    )
    poses[:, 0, 3] = start[0] + c * plan[:, 0] + s * plan[:, 1] + _wander(rng, times, 0.012)
    poses[:, 1, 3] = -eye + climb * ramp + _wander(rng, times, 0.012)
    poses[:, 2, 3] = start[1] - s * plan[:, 0] + c * plan[:, 1] + _wander(rng, times, 0.012)
    return poses


def plan_path(
    rng: np.random.Generator, room: Room, kind: str, frames: int, seconds_per_frame: float, extent: float
) -> Float64[np.ndarray, "frames 4 4"]:
    """Return camera-to-world poses of a path that keeps clear of everything.

    `extent` multiplies the speeds. They are lowered by 15 percent whenever 25 draws have not fitted into the room.
    """
    times = np.arange(frames) * seconds_per_frame
    while extent > 1e-4:
        for _ in range(ATTEMPTS_PER_SCALE):
            poses = _candidate(rng, room, kind, times, extent)
            if free_positions(room, poses[:, :3, 3]).all() and clear_view(room, poses):
                return poses
        extent *= SHRINK
    raise AssertionError(f"no camera fits into room {room.name}")
