"""Second stage: camera paths and frame errors of every clip of every video set, one JSON file each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from cami2v.evaluation.camera_metrics import CameraErrors, camera_errors, stationary_errors
from cami2v.evaluation.folder import (
    FRAMES_ONLY,
    GROUND_TRUTH,
    EvaluationFolder,
    RequestedCameras,
    read_json,
    write_json,
)
from cami2v.evaluation.frame_metrics import frame_error
from cami2v.evaluation.isolation import run_isolated
from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    PoseEstimate,
    PoseEstimator,
)
from cami2v.file_hash import file_sha256
from cami2v.video import read_frames

Frames = UInt8[np.ndarray, "frames height width 3"]
Measurement = dict[str, Any]
"""JSON of one clip: clip_id, video_set, measured_with, trials, stationary (what a motionless estimate scores),
mean_squared_error (per frame, or null). A trial has seed, failure (a reason or null) and detail, or errors, quality and
world_to_camera. Sets in `FRAMES_ONLY` have no trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipJob:
    """One clip of one video set."""

    clip_id: str
    video_set: str
    video: Path
    true_video: Path
    cameras: RequestedCameras
    seeds: tuple[int, ...]
    measured_with: dict[str, Any]


def open_jobs(folder: EvaluationFolder, *, estimator: PoseEstimator, trials: int) -> list[ClipJob]:
    """List what is not yet measured with these settings. Raises ValueError for a folder without clips or videos.

    Every clip of cameras/ is measured in every video set: one without a video is a failure, not an absence.
    """
    if not folder.clip_ids() or not folder.video_sets():
        raise ValueError(
            f"{folder.root}: no cameras/*.npz or no videos/<set>/*.mp4 to measure; run the generate stage first"
        )
    settings = {**estimator.describe(), "trials": trials}
    jobs = [_job(folder, name, clip_id, settings) for name in folder.video_sets() for clip_id in folder.clip_ids()]
    return [job for job in jobs if not _is_measured(folder, job)]


def measure(
    folder: EvaluationFolder, jobs: Sequence[ClipJob], *, estimator: PoseEstimator, processes: int
) -> Iterator[Measurement]:
    """Measure clips, each in isolated processes, and store each result as it comes."""
    for job, result in run_isolated(partial(measure_clip, estimator=estimator), jobs, processes=processes):
        crashed = FailedEstimate(reason=FailureReason.CRASHED, detail="the estimator's process died")
        measurement = result or _measurement(job, [crashed] * len(job.seeds), None)
        write_json(folder.measurement(job.video_set, job.clip_id), measurement)
        yield measurement


def measure_clip(job: ClipJob, *, estimator: PoseEstimator) -> Measurement:
    """Estimate a clip's path once per seed and compare its frames with the true ones."""
    frames = _readable_frames(job)
    if isinstance(frames, FailedEstimate):
        return _measurement(job, [frames] * len(job.seeds), None)
    estimates = estimator.estimate_trials(frames, job.cameras.intrinsics_pixels, job.seeds) if job.seeds else []
    return _measurement(job, estimates, _squared_errors(job, frames))


def _job(folder: EvaluationFolder, video_set: str, clip_id: str, settings: dict[str, Any]) -> ClipJob:
    video, true_video = folder.video(video_set, clip_id), folder.video(GROUND_TRUTH, clip_id)
    inputs: dict[str, str | None] = {
        "video": file_sha256(video) if video.exists() else None,
        "true_video": file_sha256(true_video) if true_video.exists() else None,
        "cameras": file_sha256(folder.cameras(clip_id)),
    }
    return ClipJob(
        clip_id=clip_id,
        video_set=video_set,
        video=video,
        true_video=true_video,
        cameras=folder.read_cameras(clip_id),
        seeds=() if video_set in FRAMES_ONLY else tuple(range(settings["trials"])),
        measured_with={**settings, "inputs": inputs},
    )


def _is_measured(folder: EvaluationFolder, job: ClipJob) -> bool:
    stored = folder.measurement(job.video_set, job.clip_id)
    return stored.exists() and read_json(stored)["measured_with"] == job.measured_with


def _readable_frames(job: ClipJob) -> Frames | FailedEstimate:
    if not job.video.exists():
        return FailedEstimate(reason=FailureReason.MISSING_VIDEO, detail=f"no {job.video.name}")
    try:
        frames = read_frames(job.video)
    except ValueError as error:
        return FailedEstimate(reason=FailureReason.UNREADABLE_VIDEO, detail=str(error))
    expected = (len(job.cameras.world_to_camera), job.cameras.height, job.cameras.width, 3)
    if len(frames) != expected[0]:
        return FailedEstimate(
            reason=FailureReason.WRONG_FRAME_COUNT, detail=f"{len(frames)} frames for {expected[0]} cameras"
        )
    if frames.shape != expected:
        raise ValueError(
            f"{job.video}: frames of {frames.shape[1]}x{frames.shape[2]} (height x width), but its cameras' intrinsics "
            f"are for {expected[1]}x{expected[2]}; resize the video or scale the intrinsics"
        )
    return frames


def _squared_errors(job: ClipJob, frames: Frames) -> list[float] | None:
    if job.video_set == GROUND_TRUTH or not job.true_video.exists():
        return None
    return frame_error(frames, read_frames(job.true_video)).mean_squared_error.tolist()


def _measurement(job: ClipJob, estimates: Sequence[PoseEstimate], squared_errors: list[float] | None) -> Measurement:
    truth = torch.from_numpy(job.cameras.world_to_camera)
    trials: list[dict[str, Any]] = []
    for seed, estimate in zip(job.seeds, estimates, strict=True):
        if isinstance(estimate, FailedEstimate):
            trials.append({"seed": seed, "failure": estimate.reason.value, "detail": estimate.detail})
        else:
            trials.append({"seed": seed, "failure": None, **_errors(truth, estimate)})
    return {
        "clip_id": job.clip_id,
        "video_set": job.video_set,
        "measured_with": job.measured_with,
        "trials": trials,
        "stationary": _figures(stationary_errors(truth)),
        "mean_squared_error": squared_errors,
    }


def _errors(truth: torch.Tensor, estimate: EstimatedPath) -> dict[str, Any]:
    errors = camera_errors(truth, torch.from_numpy(estimate.world_to_camera))
    return {
        "errors": _figures(errors),
        "quality": asdict(estimate.quality),
        "world_to_camera": estimate.world_to_camera.tolist(),
    }


def _figures(errors: CameraErrors) -> dict[str, float]:
    return {name: float(value) for name, value in errors.figures().items()}
