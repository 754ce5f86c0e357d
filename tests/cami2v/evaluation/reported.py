"""Evaluations whose measurements are written down instead of made: numbers known to the last digit, in no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cami2v.evaluation.bootstrap import Bootstrap
from cami2v.evaluation.folder import GENERATED, GROUND_TRUTH, EvaluationFolder, RequestedCameras, write_json
from cami2v.evaluation.measures.poses import CameraPoses
from cami2v.evaluation.pose_estimation.base import (
    FailedEstimate,
    FailureReason,
    Frames,
    IntrinsicsPixels,
    PoseEstimate,
    PoseEstimator,
)
from cami2v.evaluation.report import ReportOptions

BOOTSTRAP = Bootstrap(level=0.95, resamples=500, seed=0)
OPTIONS = ReportOptions(bootstrap=BOOTSTRAP, compatibility=None, clip_pages=False, wandb=None)
FRAMES = 4


class NoEstimator(PoseEstimator):
    """Stands for the one that made the measurements."""

    def estimate(self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seed: int) -> PoseEstimate:
        return FailedEstimate(reason=FailureReason.NO_MODEL, detail="")

    def describe(self) -> dict[str, str | int | float]:
        return {"estimator": "written down"}


POSES = CameraPoses(estimator=NoEstimator(), trials=2)


def sideways(speed: float = 1.0) -> np.ndarray:
    """World-to-camera poses of a camera that walks along x."""
    path = np.tile(np.eye(4)[:3], (FRAMES, 1, 1))
    path[:, 0, 3] = -speed * np.arange(FRAMES)
    return path


def write_measured(
    root: Path,
    errors: Mapping[str, Sequence[float | None]],
    *,
    truth: Mapping[str, Sequence[float | None]] | None = None,
    identity: Mapping[str, object] | None = None,
    speed: float = 1.0,
) -> EvaluationFolder:
    """Write an evaluation: by clip, every figure of every trial of its generated video; None is a failed trial."""
    folder = EvaluationFolder(root)
    folder.claim(identity or {"manifest_sha256": "a" * 64, "seed": 1, "checkpoint": {"weights": root.name}})
    for video_set, table in ((GENERATED, errors), (GROUND_TRUTH, truth or {})):
        for clip_id, values in table.items():
            folder.write_cameras(
                clip_id,
                RequestedCameras(
                    world_to_camera=sideways(speed),
                    intrinsics_pixels=np.tile([24.0, 24.0, 12.0, 8.0], (FRAMES, 1)),
                    translation_scale=np.ones(FRAMES),
                    height=16,
                    width=24,
                ),
            )
            folder.video(video_set, clip_id).parent.mkdir(parents=True, exist_ok=True)
            row = {
                "clip_id": clip_id,
                "video_set": video_set,
                "measured_with": {**POSES.describe(), "inputs": {}},
                "stationary": {figure.name: 9.0 for figure in POSES.figures},
                "trials": [_trial(seed, value) for seed, value in enumerate(values)],
            }
            write_json(folder.measurement(POSES.name, video_set, clip_id), row)
    return folder


def _trial(seed: int, value: float | None) -> dict[str, object]:
    if value is None:
        return {"seed": seed, "failure": "no model", "detail": "0 verified matches"}
    errors = {figure.name: value for figure in POSES.figures}
    quality = {"points": 9, "reprojection_error_pixels": 0.5}
    path = sideways().tolist()
    return {"seed": seed, "failure": None, "errors": errors, "quality": quality, "world_to_camera": path}
