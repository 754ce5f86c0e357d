"""The unit of an estimated path: metric depth of the first frame at the points that the path came with."""

from __future__ import annotations

import base64
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from cami2v.evaluation.stopwatch import timed
from cami2v.geometry.metric_scale import MetricScale, SeenPoints, depth_ratios, metric_scale, square_pixels

POINTS = "first_frame_points"
"""Key of a trial in the rows of `measures.poses`."""
Trial = Mapping[str, Any]


class ScaleFailure(StrEnum):
    """Why a trial has no error in metres."""

    NO_PATH = "no path"
    """The estimator has said why, in the row of `poses`."""
    NO_POINTS = "no points"
    """The path came without points whose depth could be compared."""
    TOO_FEW_POINTS = "too few points with depth"
    NO_REFERENCE = "no true path in metres"
    STANDS_STILL = "true path stands still"


class FrameDepth(ABC):
    """Metric depth of single frames."""

    def prepare(self) -> None:  # noqa: B027  # some sources need nothing
        """Raise ValueError where the network or its weights are not there."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what decides a depth, as JSON."""

    @abstractmethod
    def metres(self, frame: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "rows columns"]:
        """Return the depth along the optical axis; the frame's pixels are square, the map may have any resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathScaleSettings:
    """Which points decide a path's scale."""

    depth_short_side: int | None
    """The first frame is scaled to it for the depth network; None: as it is."""
    nearest_metres: float
    farthest_metres: float | None
    """Metric depths outside do not count; None: however far."""
    min_points: int

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key, low in (("depth_short_side", 14), ("min_points", 1)):
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"evaluation.metric_scale.{key}={value}: must be at least {low}")
        if not 0 <= self.nearest_metres < self.farthest:
            raise ValueError(
                f"evaluation.metric_scale.nearest_metres={self.nearest_metres:g}, farthest_metres="
                f"{self.farthest_metres}: expected 0 <= nearest < farthest"
            )

    @property
    def farthest(self) -> float:
        """Return the bound as a number."""
        return math.inf if self.farthest_metres is None else self.farthest_metres


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """No scale, and why."""

    reason: ScaleFailure
    detail: str


def path_scales(
    trials: Sequence[Trial],
    first_frame: UInt8[np.ndarray, "height width 3"],
    intrinsics_pixels: Float64[np.ndarray, "4"],
    depth: FrameDepth,
    settings: PathScaleSettings,
) -> dict[int, MetricScale | Lack]:
    """Return metres per unit of every trial of a row of `measures.poses`, by seed; the network looks once."""
    if all(trial["failure"] is not None for trial in trials):
        return {trial["seed"]: Lack(reason=ScaleFailure.NO_PATH, detail=trial["failure"]) for trial in trials}
    fx, fy = intrinsics_pixels[:2]
    with timed("depth"):
        image = square_pixels(first_frame, aspect=float(fy / fx), short_side=settings.depth_short_side)
        metres = depth.metres(image)
    return {trial["seed"]: _scale(trial, metres, settings) for trial in trials}


def _scale(
    trial: Trial, metres: Float32[np.ndarray, "rows columns"], settings: PathScaleSettings
) -> MetricScale | Lack:
    if trial["failure"] is not None:
        return Lack(reason=ScaleFailure.NO_PATH, detail=trial["failure"])
    if not trial.get(POINTS):
        detail = "the estimator kept none; where it places points, delete measurements/poses to measure again"
        return Lack(reason=ScaleFailure.NO_POINTS, detail=detail)
    points = unpacked_points(trial[POINTS])
    ratios = depth_ratios(metres, points, nearest_metres=settings.nearest_metres, farthest_metres=settings.farthest)
    if len(ratios) < settings.min_points:
        detail = f"{len(ratios)} of {len(points.depths)}, evaluation.metric_scale.min_points={settings.min_points}"
        return Lack(reason=ScaleFailure.TOO_FEW_POINTS, detail=detail)
    return metric_scale(ratios)


def in_metres(world_to_camera: Any, metres_per_unit: float) -> Float64[Tensor, "frames 3 4"]:
    """Return a path (nested lists, as rows have it) with its translations in metres."""
    path = torch.tensor(world_to_camera, dtype=torch.float64)
    return torch.cat([path[:, :, :3], path[:, :, 3:] * metres_per_unit], dim=-1)


def packed_points(points: SeenPoints) -> dict[str, Any]:
    """Write points as JSON: float32 (u, v, depth), little-endian, base64."""
    rows = np.column_stack([points.positions, points.depths]).astype("<f4")
    return {"points": len(rows), "uvz": base64.b64encode(rows.tobytes()).decode("ascii")}


def unpacked_points(packed: Mapping[str, Any]) -> SeenPoints:
    """Read what `packed_points` wrote."""
    rows = np.frombuffer(base64.b64decode(packed["uvz"]), dtype="<f4").reshape(-1, 3).astype(np.float64)
    return SeenPoints(positions=rows[:, :2], depths=rows[:, 2])
