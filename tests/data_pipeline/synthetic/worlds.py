"""A world small enough for tests: 160 x 96 pixels, two rooms."""

from __future__ import annotations

from typing import Any

from data_pipeline.synthetic.world import SyntheticWorld

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "rooms": 2,
    "shared_rooms": True,
    "sources": {"train": 3, "validation": 1, "test": 1},
    "clips_per_source": 2,
    "frames_per_clip": 4,
    "lead_frames": 2,
    "width": 160,
    "height": 96,
    "frames_per_second": 30.0,
    "supersampling": 3,
    "path_kinds": ("dolly", "truck", "pan", "orbit", "mixture"),
    "motion_extent": 1.0,
    "time_lapse": 8.0,
    "horizontal_fov_degrees": (64.0, 72.0),
    "pose_unit_metres": (0.5, 2.0),
    "crf": 12,
    "depth": True,
}


def small_world(**changes: Any) -> SyntheticWorld:
    return SyntheticWorld(**{**SETTINGS, **changes})
