"""Do validation samples follow their cameras? Estimated paths, next to the estimator's error on the true videos."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.evaluation.folder import GENERATED, GROUND_TRUTH, EvaluationFolder, read_json
from cami2v.evaluation.generate import write_generated, write_ground_truth
from cami2v.evaluation.measure import measure_clips, open_jobs
from cami2v.evaluation.measures.poses import CameraPoses
from cami2v.evaluation.pose_estimation.base import PoseEstimator
from cami2v.evaluation.summary import SetSummary, summarise
from cami2v.training.callbacks.base import RunContext
from cami2v.training.callbacks.judge import CameraErrorSettings, SampleJudge

logger = logging.getLogger(__name__)

COLUMNS = ("RotErr_mean_deg", "TransErr_mean", "CamMC_mean")
_CRF = 10
"""Of `cami2v evaluate`."""


class CameraErrors(SampleJudge):
    """Estimates the camera paths of validation samples as `cami2v evaluate` does, on the main process.

    The true videos are measured once per run: a model cannot be told from the truth below that floor.
    """

    def __init__(self, *, settings: CameraErrorSettings, estimator: PoseEstimator, validate_every_steps: int) -> None:
        self.settings = settings
        self.poses = CameraPoses(estimator=estimator, trials=settings.trials)
        self.validate_every_steps = validate_every_steps

    def due(self, run: RunContext) -> bool:
        """Tell whether the validation of this step measures cameras; the last one always does."""
        return run.due(self.validate_every_steps * self.settings.every_validations)

    def keep(self, run: RunContext, clip: ClipBatch, sample: Float[Tensor, "1 3 frames height width"]) -> None:
        """Store a sample and its cameras to be measured, on the process that made it."""
        folder = self._samples(run)
        # What an earlier start of the run left here is of other weights.
        folder.video(GENERATED, clip.clip_ids[0]).unlink(missing_ok=True)
        write_ground_truth(self._truth(run), [clip], crf=_CRF)
        folder.write_cameras(clip.clip_ids[0], self._truth(run).read_cameras(clip.clip_ids[0]))
        write_generated(folder, [clip], lambda _: sample, trajectories=("right",), crf=_CRF)

    def measure(self, run: RunContext) -> dict[str, Any]:
        """Return the columns of this validation, once all processes have stored their samples (main process only).

        A clip without estimate counts as `cami2v evaluate` counts it, so that failing never looks better.
        """
        clip_ids = self._samples(run).clip_ids()
        floor = self._summary(self._truth(run), GROUND_TRUTH, clip_ids)
        samples = self._summary(self._samples(run), GENERATED, clip_ids)
        row: dict[str, Any] = {"camera_error/clips": samples.clips}
        for name, summary in (("camera_error", samples), ("camera_floor", floor)):
            row[f"{name}/failed_clips"] = _failed(summary)
            row |= {f"{name}/{figure}": summary.figures[figure].penalised_mean for figure in COLUMNS}
        figures = "  ".join(
            f"{name} {row[f'camera_error/{name}']:.4g} (true videos {row[f'camera_floor/{name}']:.4g})"
            for name in COLUMNS
        )
        logger.info(
            "step %d  camera error of %d samples: %s  failed: %d (true videos %d)", run.state.step, samples.clips,
            figures, _failed(samples), _failed(floor),
        )  # fmt: skip
        return row

    def _summary(self, folder: EvaluationFolder, video_set: str, clip_ids: list[str]) -> SetSummary:
        jobs = open_jobs(folder, self.poses)
        for _ in measure_clips(folder, self.poses, jobs, processes=self.settings.processes):
            pass
        rows = [read_json(folder.measurement(self.poses.name, video_set, clip_id)) for clip_id in clip_ids]
        return summarise([self.poses], {self.poses.name: {video_set: rows}}, video_set, {})

    def _truth(self, run: RunContext) -> EvaluationFolder:
        return EvaluationFolder(run.folder.samples / "true_videos")

    def _samples(self, run: RunContext) -> EvaluationFolder:
        step: Path = run.folder.samples / f"step-{run.state.step:08d}"
        return EvaluationFolder(step / "camera")


def _failed(summary: SetSummary) -> int:
    return summary.figures[COLUMNS[0]].failed
