"""Camera errors of a video: its path, estimated once per trial, against the requested one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch

from cami2v.evaluation.camera_metrics import CameraErrors, camera_errors, stationary_errors
from cami2v.evaluation.folder import FRAMES_ONLY, RequestedCameras
from cami2v.evaluation.measures.base import (
    Attempt,
    Curve,
    Failure,
    Figure,
    JudgedClip,
    Measure,
    Row,
    UnusableVideo,
)
from cami2v.evaluation.path_scale import POINTS, packed_points
from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    PoseEstimate,
    PoseEstimator,
)

_PUBLISHED = "sum over frames, each path's translations divided by its own extent (published convention)"
_PER_FRAME = "mean over frames 1..T-1, each path's translations divided by its own extent"


class CameraPoses(Measure):
    """Estimates the path of every clip `trials` times, each with its own matching seed.

    A row has `trials` and `stationary` (what a motionless estimate scores). A trial has seed, failure (a reason or
    null) and detail, or errors, quality and world_to_camera.
    """

    name: ClassVar[str] = "poses"
    isolated: ClassVar[bool] = True
    figures: ClassVar[Sequence[Figure]] = (
        Figure(name="RotErr_sum_rad", label="RotErr", unit="radians", better="lower", meaning=_PUBLISHED),
        Figure(name="TransErr_sum", label="TransErr", unit="path extents", better="lower", meaning=_PUBLISHED),
        Figure(name="CamMC_sum", label="CamMC", unit="", better="lower", meaning=_PUBLISHED),
        Figure(name="RotErr_mean_deg", label="RotErr", unit="degrees", better="lower", meaning=_PER_FRAME),
        Figure(name="TransErr_mean", label="TransErr", unit="path extents", better="lower", meaning=_PER_FRAME),
        Figure(name="CamMC_mean", label="CamMC", unit="", better="lower", meaning=_PER_FRAME),
    )

    def __init__(self, *, estimator: PoseEstimator, trials: int) -> None:
        if trials < 1:
            raise ValueError(f"evaluation.trials={trials}: must be at least 1")
        self.estimator = estimator
        self.trials = trials

    def prepare(self) -> None:
        """Raise ValueError where the estimator misses something."""
        self.estimator.prepare()

    def describe(self) -> dict[str, Any]:
        """Return the estimator's settings and the number of trials."""
        return {**self.estimator.describe(), "trials": self.trials}

    def judges(self, video_set: str) -> bool:
        """Leave out the sets that only answer whether the camera matters."""
        return video_set not in FRAMES_ONLY

    def judge(self, clip: JudgedClip) -> Row:
        """Estimate the clip's path once per seed."""
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return self._failed(clip, frames.reason.value, frames.detail)
        estimates = self.estimator.estimate_trials(frames, clip.cameras.intrinsics_pixels, range(self.trials))
        truth = torch.from_numpy(clip.cameras.world_to_camera)
        trials = [_trial(seed, truth, estimate) for seed, estimate in enumerate(estimates)]
        return {"trials": trials, "stationary": _stationary(clip)}

    def crashed(self, clip: JudgedClip) -> Row:
        """Return a row of crashed trials."""
        return self._failed(clip, FailureReason.CRASHED.value, "the estimator's process died")

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the medians over the successful trials."""
        done = successes(row)
        return {
            figure.name: statistics.median(trial["errors"][figure.name] for trial in done) if done else None
            for figure in self.figures
        }

    def failures(self, row: Row) -> list[Failure]:
        """Return the failed trials."""
        return [
            Failure(trial=str(trial["seed"]), reason=trial["failure"], detail=trial["detail"])
            for trial in row["trials"]
            if trial["failure"] is not None
        ]

    def attempts(self, row: Row) -> list[Attempt]:
        """Return the trials with what they estimated."""
        return [
            Attempt(
                trial=str(trial["seed"]),
                failure=trial["failure"],
                detail=trial.get("detail") or _rescue(trial),
                values=trial.get("errors", {}),
                world_to_camera=trial.get("world_to_camera"),
            )
            for trial in row["trials"]
        ]

    def curves(self, row: Row, cameras: RequestedCameras) -> list[Curve]:
        """Return the errors of every frame, of the median over the successful trials."""
        truth = torch.from_numpy(cameras.world_to_camera)
        paths = [torch.tensor(trial["world_to_camera"], dtype=torch.float64) for trial in successes(row)]
        if not paths:
            return []
        errors = [camera_errors(truth, path) for path in paths]
        turned = torch.rad2deg(torch.stack([each.rotation_radians for each in errors]))
        moved = torch.stack([each.translation for each in errors])
        return [
            Curve(label="rotation error", unit="degrees", values=turned.quantile(0.5, dim=0).tolist()),
            Curve(label="translation error", unit="path extents", values=moved.quantile(0.5, dim=0).tolist()),
        ]

    def penalties(self, row: Row) -> dict[str, float]:
        """Return what a camera that never moved would score: failing never pays."""
        return dict(row["stationary"])

    def facts(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the numbers of trials, and the mean over clips of the standard deviation over a clip's trials."""
        trials = [trial for row in rows for trial in row["trials"]]
        return {
            "trials": len(trials),
            "failed_trials": sum(trial["failure"] is not None for trial in trials),
            "rescued_trials": sum(bool(_rescue(trial)) for trial in trials),
            "trial_spread": {figure.name: _spread(rows, figure.name) for figure in self.figures},
        }

    def recorded(self, row: Row) -> Row:
        """Return a row without the points of its paths."""
        trials = [{key: value for key, value in trial.items() if key != POINTS} for trial in row["trials"]]
        return {**row, "trials": trials}

    def _failed(self, clip: JudgedClip, reason: str, detail: str) -> Row:
        trials = [{"seed": seed, "failure": reason, "detail": detail} for seed in range(self.trials)]
        return {"trials": trials, "stationary": _stationary(clip)}


def successes(row: Row) -> list[dict[str, Any]]:
    """Return the trials of a row that gave a path."""
    return [trial for trial in row["trials"] if trial["failure"] is None]


def _rescue(trial: Row) -> str:
    rescued_by = trial.get("quality", {}).get("rescued_by")
    return f"rescued: {rescued_by}" if rescued_by else ""


def _spread(rows: Sequence[Row], name: str) -> float | None:
    per_clip = [[trial["errors"][name] for trial in successes(row)] for row in rows]
    spreads = [statistics.stdev(values) for values in per_clip if len(values) > 1]
    return statistics.fmean(spreads) if spreads else None


def _trial(seed: int, truth: torch.Tensor, estimate: PoseEstimate) -> dict[str, Any]:
    if isinstance(estimate, FailedEstimate):
        return {"seed": seed, "failure": estimate.reason.value, "detail": estimate.detail}
    return {"seed": seed, "failure": None, **_errors(truth, estimate)}


def _errors(truth: torch.Tensor, estimate: EstimatedPath) -> dict[str, Any]:
    points = estimate.first_frame_points
    return {
        "errors": _figures(camera_errors(truth, torch.from_numpy(estimate.world_to_camera))),
        "quality": asdict(estimate.quality),
        "world_to_camera": estimate.world_to_camera.tolist(),
        **({POINTS: packed_points(points)} if points is not None else {}),
    }


def _stationary(clip: JudgedClip) -> dict[str, float]:
    return _figures(stationary_errors(torch.from_numpy(clip.cameras.world_to_camera)))


def _figures(errors: CameraErrors) -> dict[str, float]:
    return {name: float(value) for name, value in errors.figures().items()}
