"""Settings of a synthetic world and the plan that follows from them: sources, clips, cameras. Nothing is rendered."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from data_pipeline.synthetic.furniture import with_article
from data_pipeline.synthetic.noise import generator
from data_pipeline.synthetic.paths import KINDS, plan_path
from data_pipeline.synthetic.rooms import Room, furnish_room

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticWorld:
    """A seeded world of furnished rooms, filmed by sources of several clips each.

    Raises ValueError for settings no world can have.
    """

    seed: int
    rooms: int
    """Rooms per split; with `shared_rooms`, all splits film these same rooms."""
    shared_rooms: bool
    """True: held-out clips are new paths through rooms seen in training. Source ids are disjoint either way."""
    sources: Mapping[str, int]
    """Source videos per split (train, validation, test)."""
    clips_per_source: int
    frames_per_clip: int
    lead_frames: int
    """Frames of the source video before each clip that belong to no clip, at most; the number varies per clip."""
    width: int
    height: int
    frames_per_second: float
    supersampling: int
    """Rays per pixel along each axis where surfaces meet."""
    path_kinds: tuple[str, ...]
    """Among dolly, truck, pan, orbit, mixture; clips take turns."""
    motion_extent: float
    """Multiplies the camera's speeds; 1 is RealEstate10K's."""
    time_lapse: float
    """Seconds of motion per second of video: with 8, consecutive frames move as frames 8 apart do in RealEstate10K."""
    horizontal_fov_degrees: tuple[float, float]
    """Lowest and highest; drawn per source."""
    pose_unit_metres: tuple[float, float]
    """Lowest and highest length of a pose file's unit; drawn per source, [1, 1] makes all poses metric."""
    crf: int
    """Quality of the H.264 source videos, lower is better."""
    depth: bool
    """Also write depth maps and metric_scale.json."""

    def __post_init__(self) -> None:
        for field, low in (
            ("rooms", 1),
            ("clips_per_source", 1),
            ("frames_per_clip", 1),
            ("lead_frames", 0),
            ("supersampling", 1),
        ):
            _require(getattr(self, field) >= low, field, getattr(self, field), f"at least {low}")
        for field in ("width", "height"):
            value = getattr(self, field)
            _require(
                value >= 32 and value % 2 == 0, field, value, "even and at least 32 (H.264 stores colour at half size)"
            )
        for field in ("frames_per_second", "motion_extent", "time_lapse"):
            number = getattr(self, field)
            _require(math.isfinite(number) and number > 0, field, number, "positive")
        _require(0 <= self.crf <= 51, "crf", self.crf, "0 to 51")
        known = bool(self.sources) and set(self.sources) <= set(SPLITS)
        _require(
            known and min(self.sources.values()) >= 1,
            "sources",
            dict(self.sources),
            f"a positive number for some of {', '.join(SPLITS)}",
        )
        _require(
            bool(self.path_kinds) and set(self.path_kinds) <= set(KINDS),
            "path_kinds",
            list(self.path_kinds),
            f"some of {', '.join(KINDS)}",
        )
        for field, lowest, highest in (("horizontal_fov_degrees", 20.0, 120.0), ("pose_unit_metres", 1e-3, 1e3)):
            span = getattr(self, field)
            allowed = f"[lowest, highest] within {lowest:g} to {highest:g}"
            _require(lowest <= span[0] <= span[1] <= highest, field, span, allowed)

    def settings(self) -> dict[str, object]:
        """Return the settings as plain JSON values."""
        plain: dict[str, object] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["sources"] = dict(self.sources)
        for name in ("path_kinds", "horizontal_fov_degrees", "pose_unit_metres"):
            plain[name] = list(getattr(self, name))
        return plain


def _require(condition: bool, field: str, got: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"synthetic world: {field}={got}, must be {allowed}; change `{field}` in the world's config")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClip:
    """One clip within its source video."""

    clip_id: str
    kind: str
    lead: int
    """Frames of the source video filmed on the way to this clip."""
    first_frame: int
    """Of the clip, in the source video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """One source video."""

    source_id: str
    split: str
    room_name: str
    intrinsics_normalized: Float64[np.ndarray, "4"]
    metres_per_unit: float
    clips: tuple[PlannedClip, ...]


def plan_sources(world: SyntheticWorld) -> list[PlannedSource]:
    """List all source videos of a world with their clips, split by split."""
    return [
        _plan_source(world, split, number)
        for split in SPLITS
        if split in world.sources
        for number in range(world.sources[split])
    ]


def _plan_source(world: SyntheticWorld, split: str, number: int) -> PlannedSource:
    source_id = f"synthetic-{world.seed}-{split}-{number:04d}"
    rng = generator("source", source_id)
    fov = np.deg2rad(rng.uniform(*world.horizontal_fov_degrees))
    focal = 0.5 / np.tan(fov / 2)
    low, high = np.log(world.pose_unit_metres)
    clips, position = [], 0
    for index in range(world.clips_per_source):
        lead = int(rng.integers(world.lead_frames + 1))
        clips.append(
            PlannedClip(
                clip_id=hashlib.sha256(f"{source_id}/{index}".encode()).hexdigest()[:16],
                kind=world.path_kinds[(number * world.clips_per_source + index) % len(world.path_kinds)],
                lead=lead,
                first_frame=position + lead,
            )
        )
        position += lead + world.frames_per_clip
    owner = "shared" if world.shared_rooms else split
    return PlannedSource(
        source_id=source_id,
        split=split,
        room_name=f"{world.seed}-{owner}-{number % world.rooms}",
        intrinsics_normalized=np.array([focal, focal * world.width / world.height, 0.5, 0.5]),
        metres_per_unit=float(np.exp(rng.uniform(low, high))),
        clips=tuple(clips),
    )


def camera_path(world: SyntheticWorld, source: PlannedSource, clip: PlannedClip) -> Float64[np.ndarray, "frames 4 4"]:
    """Return camera-to-world poses in metres of a clip's leading and own frames."""
    rng = generator("path", source.source_id, clip.clip_id)
    frames = clip.lead + world.frames_per_clip
    seconds_per_frame = world.time_lapse / world.frames_per_second
    return plan_path(rng, furnish_room(source.room_name), clip.kind, frames, seconds_per_frame, world.motion_extent)


def intrinsics_pixels(world: SyntheticWorld, source: PlannedSource) -> Float64[np.ndarray, "4"]:
    """Return fx fy cx cy in pixels."""
    return source.intrinsics_normalized * np.array([world.width, world.height, world.width, world.height])


def caption(room: Room, camera_to_world: Float64[np.ndarray, "4 4"], fov: float) -> str:
    """Name the room and up to three pieces of furniture within the horizontal field of view (radians)."""
    towards = room.spots - camera_to_world[[0, 2], 3]
    forward, right = camera_to_world[[0, 2], 2], camera_to_world[[0, 2], 0]
    bearing = np.abs(np.arctan2(towards @ right, towards @ forward))
    order = np.argsort(np.linalg.norm(towards, axis=1))
    seen = [with_article(room.nouns[i]) for i in order if bearing[i] < fov / 2][:3]
    if not seen:
        return f"a {room.kind} with pictures on the walls"
    return f"a {room.kind} with {seen[0] if len(seen) == 1 else ', '.join(seen[:-1]) + ' and ' + seen[-1]}"
