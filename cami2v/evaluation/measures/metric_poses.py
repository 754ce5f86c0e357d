"""Camera errors in metres (TransErr_abs, CamMC_abs): estimated paths, brought to metric scale by a depth network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
import torch

from cami2v.evaluation.camera_metrics import (
    CameraErrors,
    Path,
    camera_errors,
    relative_to_first,
    stationary_errors,
    translation_extent,
)
from cami2v.evaluation.folder import FRAMES_ONLY, GROUND_TRUTH, RequestedCameras, read_json
from cami2v.evaluation.measures.base import Attempt, Curve, Failure, Figure, JudgedClip, Measure, Row, UnusableVideo
from cami2v.evaluation.path_scale import FrameDepth, Lack, PathScaleSettings, ScaleFailure, in_metres, path_scales
from cami2v.geometry.metric_scale import MetricScale

NAME = "metric_poses"
METRES_STILL = 1e-6
"""A true path no longer than this has no extent to divide by."""

_PUBLISHED = "sum over frames, both paths in metres, divided by the true path's extent (published convention)"
_PER_FRAME = "mean over frames 1..T-1, both paths in metres, divided by the true path's extent"


class MetricPoses(Measure):
    """Compares paths in metres: the estimated one against the requested cameras where these are metric.

    Otherwise against what the same estimator makes of the true video, itself brought to metres (as published); then the
    true videos have no such error of their own. Trials are compared by number; where the true video's failed, with its
    first one that did not. A row has `reference` (null for true videos without metric cameras), `trials` and
    `stationary`.
    """

    name: ClassVar[str] = NAME
    needs: ClassVar[str | None] = "poses"
    figures: ClassVar[Sequence[Figure]] = (
        Figure(name="TransErr_abs_sum", label="TransErr_abs", unit="path extents", better="lower", meaning=_PUBLISHED),
        Figure(name="CamMC_abs_sum", label="CamMC_abs", unit="", better="lower", meaning=_PUBLISHED),
        Figure(name="TransErr_abs_mean", label="TransErr_abs", unit="path extents", better="lower", meaning=_PER_FRAME),
        Figure(name="CamMC_abs_mean", label="CamMC_abs", unit="", better="lower", meaning=_PER_FRAME),
        Figure(
            name="TransErr_metres", label="TransErr", unit="metres", better="lower",
            meaning="distance of the camera centres, mean over frames 1..T-1",
        ),
    )  # fmt: skip

    def __init__(self, *, depth: FrameDepth, scale: PathScaleSettings) -> None:
        scale.validate()
        self.depth = depth
        self.scale = scale
        self._true_scales: dict[str, dict[int, MetricScale | Lack]] = {}

    def prepare(self) -> None:
        """Raise ValueError where the depth network misses something."""
        self.depth.prepare()

    def describe(self) -> dict[str, Any]:
        """Return the depth network and the rule."""
        return {**self.depth.describe(), **asdict(self.scale)}

    def judges(self, video_set: str) -> bool:
        """Leave out the sets that only answer whether the camera matters."""
        return video_set not in FRAMES_ONLY

    def judge(self, clip: JudgedClip) -> Row:
        """Bring the clip's estimated paths to metres and compare them."""
        assert clip.row is not None
        poses = read_json(clip.row)["trials"]
        references, name = self._references(clip)
        scales = self._scales(clip, poses)
        trials = []
        for trial in poses:
            found = scales[trial["seed"]]
            if isinstance(found, Lack):
                trials.append({"seed": trial["seed"], "failure": found.reason.value, "detail": found.detail})
                continue
            truth = references.get(trial["seed"], next(iter(references.values()), None))
            estimate = in_metres(trial["world_to_camera"], found.metres_per_unit)
            trials.append({"seed": trial["seed"], **_compared(name, truth, estimate), **asdict(found)})
        first = next(iter(references.values()), None)
        return {"reference": name, "trials": trials, "stationary": _stationary(clip.cameras, first)}

    def _references(self, clip: JudgedClip) -> tuple[dict[int, Path], str | None]:
        """Return the true path in metres, by trial where there is one for each; and what it is."""
        if clip.cameras.metric:
            return {0: _requested_metres(clip.cameras)}, "requested cameras"
        if clip.video_set == GROUND_TRUTH:
            return {}, None
        if clip.true_row is None:
            return {}, "true video"
        trials = read_json(clip.true_row)["trials"]
        if clip.clip_id not in self._true_scales:
            self._true_scales[clip.clip_id] = self._scales(replace(clip, video=clip.true_video), trials)
        scales = self._true_scales[clip.clip_id]
        return {
            trial["seed"]: in_metres(trial["world_to_camera"], found.metres_per_unit)
            for trial in trials
            if isinstance(found := scales[trial["seed"]], MetricScale)
        }, "true video"

    def _scales(self, clip: JudgedClip, trials: Sequence[Row]) -> dict[int, MetricScale | Lack]:
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return {trial["seed"]: Lack(reason=ScaleFailure.NO_PATH, detail=frames.reason.value) for trial in trials}
        return path_scales(trials, frames[0], clip.cameras.intrinsics_pixels[0], self.depth, self.scale)

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the medians over the successful trials; nothing for true videos without metric cameras."""
        if row["reference"] is None:
            return {}
        done = [trial["errors"] for trial in row["trials"] if trial["failure"] is None]
        names = [figure.name for figure in self.figures]
        return {name: statistics.median(errors[name] for errors in done) if done else None for name in names}

    def failures(self, row: Row) -> list[Failure]:
        """Return the trials that failed here; those without a path are listed by `poses`."""
        return [
            Failure(trial=str(trial["seed"]), reason=trial["failure"], detail=trial["detail"])
            for trial in row["trials"]
            if trial["failure"] not in (None, ScaleFailure.NO_PATH)
        ]

    def penalties(self, row: Row) -> dict[str, float]:
        """Return what a camera that never moved would score."""
        return dict(row["stationary"])

    def attempts(self, row: Row) -> list[Attempt]:
        """Return the trials."""
        return [
            Attempt(
                trial=str(trial["seed"]),
                failure=trial["failure"],
                detail=trial.get("detail", ""),
                values=trial.get("errors", {}),
            )
            for trial in row["trials"]
            if row["reference"] is not None
        ]

    def curves(self, row: Row, cameras: RequestedCameras) -> list[Curve]:
        """Return the distance of the camera centres, of the median over the successful trials."""
        done = [trial["distances"] for trial in row["trials"] if trial.get("distances")]
        if not done:
            return []
        return [Curve(label="translation error", unit="metres", values=np.median(done, axis=0).tolist())]

    def facts(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the numbers of trials, and how well points and depth network agree, median over trials."""
        trials = [trial for row in rows for trial in row["trials"]]
        scaled = [trial for trial in trials if "metres_per_unit" in trial]
        agreed = {name: [trial[name] for trial in scaled] for name in ("points", "spread", "inlier_share")}
        return {
            "trials": len(trials),
            "failed_trials": sum(trial["failure"] is not None for trial in trials),
            **{name: statistics.median(values) if values else None for name, values in agreed.items()},
        }


def _requested_metres(cameras: RequestedCameras) -> Path:
    path = torch.from_numpy(cameras.world_to_camera)
    scale = torch.from_numpy(cameras.translation_scale)[:, None, None]
    return torch.cat([path[:, :, :3], path[:, :, 3:] * scale], dim=-1)


def _compared(name: str | None, truth: Path | None, estimate: Path) -> dict[str, Any]:
    if name is None:
        return {"failure": None}
    if truth is None:
        detail = f"the {name} has no path in metres (docs/evaluate.md)"
        return {"failure": ScaleFailure.NO_REFERENCE.value, "detail": detail}
    extent = float(translation_extent(relative_to_first(truth)))
    if extent < METRES_STILL:
        return {"failure": ScaleFailure.STANDS_STILL.value, "detail": f"it is {extent:.2g} m long"}
    errors = camera_errors(truth, estimate, unit="first")
    distances = errors.translation * extent
    return {
        "failure": None,
        "errors": {**_figures(errors), "TransErr_metres": float(distances[1:].mean())},
        "distances": distances.tolist(),
    }


def _stationary(cameras: RequestedCameras, truth: Path | None) -> dict[str, float]:
    """Return what standing still scores: of sums and means also where nobody knows metres, they have no unit."""
    path = torch.from_numpy(cameras.world_to_camera) if truth is None else truth
    errors = stationary_errors(path)
    if truth is None:
        return _figures(errors)
    extent = float(translation_extent(relative_to_first(truth)))
    return {**_figures(errors), "TransErr_metres": float(errors.translation[1:].mean()) * extent}


def _figures(errors: CameraErrors) -> dict[str, float]:
    found = errors.figures()
    return {
        f"{name}_abs_{kind}": float(found[f"{name}_{kind}"])
        for kind in ("sum", "mean")
        for name in ("TransErr", "CamMC")
    }
