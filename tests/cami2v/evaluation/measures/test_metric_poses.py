"""Paths known up to a unit get their metres back, and the errors in metres are the closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float32, UInt8

from cami2v.evaluation.folder import EvaluationFolder, RequestedCameras, read_json, write_json
from cami2v.evaluation.measure import measure_clips, open_jobs
from cami2v.evaluation.measures.base import Row
from cami2v.evaluation.measures.metric_poses import MetricPoses
from cami2v.evaluation.measures.poses import CameraPoses
from cami2v.evaluation.path_scale import FrameDepth, PathScaleSettings
from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    Frames,
    IntrinsicsPixels,
    PoseEstimate,
    PoseEstimator,
)
from cami2v.evaluation.report import report
from cami2v.geometry.metric_scale import SeenPoints, at_points
from cami2v.video import write_mp4
from tests.cami2v.evaluation.test_stages import QUALITY

FRAMES, HEIGHT, WIDTH = 5, 24, 32
STEP_METRES = 0.5
SCALE = PathScaleSettings(depth_short_side=None, nearest_metres=0.0, farthest_metres=None, min_points=10)
METRES = np.tile(np.linspace(2, 5, WIDTH, dtype=np.float32), (HEIGHT, 1))
LEVELS = {"ground_truth": 80, "generated": 160, "blind": 240}
"""How bright the videos of a set are: what the stand-in estimator knows them by."""


class TrueDepth(FrameDepth):
    """The room's own depth."""

    def __init__(self) -> None:
        self.asked = 0

    def describe(self) -> dict[str, Any]:
        return {"depth": "true"}

    def metres(self, frame: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "rows columns"]:
        assert frame.shape == (HEIGHT, WIDTH, 3)
        self.asked += 1
        return METRES


class UpToScale(PoseEstimator):
    """Walks `faster` times the true path, in a unit of its own, and sees the room's points in that unit.

    Every third point is at a wrong depth. White videos have no path; the second trial of a true video has none either.
    """

    def __init__(self, units: Mapping[str, float], faster: float, points: int) -> None:
        self.units, self.faster, self.points = units, faster, points

    def estimate(self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seed: int) -> PoseEstimate:
        video_set = min(LEVELS, key=lambda name: abs(LEVELS[name] - float(frames.mean())))
        if video_set == "blind" or (video_set == "ground_truth" and seed == 1):
            return FailedEstimate(reason=FailureReason.NO_MODEL, detail="0 verified matches")
        unit = self.units[video_set]
        generator = np.random.default_rng(seed)
        positions = generator.uniform(0, 1, (self.points, 2))
        depths = at_points(METRES, positions) / unit
        depths[::3] *= generator.uniform(2, 9, len(depths[::3]))
        path = walk(STEP_METRES * (1.0 if video_set == "ground_truth" else self.faster) / unit)
        points = SeenPoints(positions=positions, depths=depths)
        return EstimatedPath(world_to_camera=path, quality=QUALITY, first_frame_points=points)

    def describe(self) -> dict[str, str | int | float]:
        return {"estimator": "up to scale", "faster": self.faster, "points": self.points}


def walk(step: float) -> np.ndarray:
    path = np.tile(np.eye(4)[:3], (FRAMES, 1, 1))
    path[:, 0, 3] = -step * np.arange(FRAMES)
    return path


def requested(*, metres_per_unit: float | None) -> RequestedCameras:
    """Cameras in a unit of their own; metric ones say how long it is."""
    unit = metres_per_unit or 0.037
    return RequestedCameras(
        world_to_camera=walk(STEP_METRES / unit),
        intrinsics_pixels=np.tile([24.0, 24.0, 16.0, 12.0], (FRAMES, 1)),
        translation_scale=np.full(FRAMES, metres_per_unit or 1.0),
        height=HEIGHT,
        width=WIDTH,
        metric=metres_per_unit is not None,
    )


def measured(
    root: Path, cameras: RequestedCameras, *, faster: float = 1.2, points: int = 300, truth: bool = True
) -> tuple[EvaluationFolder, dict[str, Row], MetricPoses, CameraPoses]:
    folder = EvaluationFolder(root)
    folder.write_cameras("clip", cameras)
    for name, level in LEVELS.items():
        if truth or name != "ground_truth":
            write_mp4(folder.video(name, "clip"), np.full((FRAMES, HEIGHT, WIDTH, 3), level, dtype=np.uint8), 8)
    units = {"ground_truth": 3.7, "generated": 0.021}
    poses = CameraPoses(estimator=UpToScale(units, faster, points), trials=2)
    for job in open_jobs(folder, poses):
        stored = {"clip_id": "clip", "video_set": job.clip.video_set, "measured_with": job.measured_with}
        write_json(folder.measurement("poses", job.clip.video_set, "clip"), stored | poses.judge(job.clip))
    metric = MetricPoses(depth=TrueDepth(), scale=SCALE)
    rows = {row["video_set"]: row for row in measure_clips(folder, metric, open_jobs(folder, metric), processes=1)}
    return folder, rows, metric, poses


def test_a_path_known_up_to_scale_gets_its_metres_back(tmp_path: Path) -> None:
    folder, rows, metric, poses = measured(tmp_path, requested(metres_per_unit=None))
    trials = rows["generated"]["trials"]
    assert [trial["metres_per_unit"] for trial in trials] == pytest.approx([0.021, 0.021], rel=1e-6)
    assert rows["ground_truth"]["trials"][0]["metres_per_unit"] == pytest.approx(3.7, rel=1e-6)
    assert trials[0]["inlier_share"] == pytest.approx(2 / 3)
    # Frame i is 0.2 i steps too far; the true path is 4 steps long. Its unit does not matter, its shape is right.
    expected = {
        "TransErr_abs_sum": 0.2 * (1 + 2 + 3 + 4) / 4,
        "CamMC_abs_sum": 0.2 * (1 + 2 + 3 + 4) / 4,
        "TransErr_abs_mean": 0.2 * 2.5 / 4,
        "CamMC_abs_mean": 0.2 * 2.5 / 4,
        "TransErr_metres": 0.2 * 2.5 * STEP_METRES,
    }
    assert metric.values(rows["generated"]) == pytest.approx(expected, rel=1e-6)
    assert metric.curves(rows["generated"], requested(metres_per_unit=None))[0].values[-1] == pytest.approx(0.4)
    poses_row = read_json(folder.measurement("poses", "generated", "clip"))
    assert poses.values(poses_row)["TransErr_sum"] == pytest.approx(0.0, abs=1e-6)
    # The truth is not compared with itself; what failed before counts as a camera that stands still.
    assert metric.values(rows["ground_truth"]) == {}
    assert metric.values(rows["blind"])["TransErr_abs_sum"] is None
    assert metric.failures(rows["blind"]) == []
    assert metric.penalties(rows["blind"])["TransErr_abs_sum"] == pytest.approx(2.5)
    assert metric.penalties(rows["blind"])["TransErr_metres"] == pytest.approx(2.5 * STEP_METRES)
    assert "first_frame_points" in poses_row["trials"][0]
    assert "first_frame_points" not in poses.recorded(poses_row)["trials"][0]
    text = report(folder, [poses, metric])
    assert "| CamMC | TransErr_abs | CamMC_abs |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| generated | 1 | 1/1 | 0/2 | mean | ")]
    assert row.split(" | ")[8:10] == ["0.5000", "0.5000"]


def test_metric_cameras_are_the_truth_themselves(tmp_path: Path) -> None:
    _, rows, metric, _ = measured(tmp_path, requested(metres_per_unit=0.25), truth=False)
    assert rows["generated"]["reference"] == "requested cameras"
    assert metric.values(rows["generated"])["TransErr_metres"] == pytest.approx(0.2 * 2.5 * STEP_METRES, rel=1e-6)


def test_the_estimators_own_error_is_known_where_cameras_are_metric(tmp_path: Path) -> None:
    _, rows, metric, _ = measured(tmp_path, requested(metres_per_unit=0.25))
    assert metric.values(rows["ground_truth"])["TransErr_abs_sum"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("points", "truth", "reason", "detail"),
    [
        (9, True, "too few points with depth", "9 of 9, evaluation.metric_scale.min_points=10"),
        (300, False, "no true path in metres", "the true video has no path in metres"),
    ],
)
def test_why_there_is_no_error_in_metres(tmp_path: Path, points: int, truth: bool, reason: str, detail: str) -> None:
    _, rows, metric, _ = measured(tmp_path, requested(metres_per_unit=None), points=points, truth=truth)
    failures = metric.failures(rows["generated"])
    assert [(each.trial, each.reason) for each in failures] == [("0", reason), ("1", reason)]
    assert failures[0].detail.startswith(detail)
    assert metric.values(rows["generated"])["CamMC_abs_sum"] is None


def test_a_true_path_that_stands_still_has_no_extent(tmp_path: Path) -> None:
    cameras = requested(metres_per_unit=1.0)
    still = replace(cameras, world_to_camera=np.tile(np.eye(4)[:3], (FRAMES, 1, 1)))
    _, rows, metric, _ = measured(tmp_path, still)
    assert metric.failures(rows["generated"])[0].reason == "true path stands still"


def test_paths_measured_again_are_brought_to_metres_again(tmp_path: Path) -> None:
    folder, _, metric, _ = measured(tmp_path, requested(metres_per_unit=None))
    assert not open_jobs(folder, metric)
    row = folder.measurement("poses", "generated", "clip")
    row.write_text(row.read_text().replace('"failure": null', '"failure":  null'))
    assert [job.clip.video_set for job in open_jobs(folder, metric)] == ["generated"]
    row.unlink()
    with pytest.raises(ValueError, match="metric_poses needs what poses says of clip clip of generated, which is not"):
        open_jobs(folder, metric)
