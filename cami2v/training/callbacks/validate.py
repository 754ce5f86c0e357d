"""Look at a few fixed clips during training: the loss of diffusion tells little about the camera."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.geometry.cameras import relative_poses
from cami2v.inference.clip_video import enlarged, side_by_side, to_frames
from cami2v.inference.trajectory_plot import trajectory_image
from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.callbacks.judge import SampleJudge
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.state import StepReport
from cami2v.video import write_mp4

logger = logging.getLogger(__name__)


class Validate(Callback):
    """Write the loss of fixed clips and videos of them: ground truth | sample | trajectory.

    The clips keep their seeds, so noise and timesteps are the same at every validation and numbers compare over steps.
    All processes walk in lockstep, as ZeRO-3 needs it; clips are dealt to them in turn.
    """

    def __init__(
        self,
        *,
        clips: Sequence[ClipBatch],
        sampler: Any,
        every_steps: int,
        log: MetricsLog,
        use_average: bool = False,
        judge: SampleJudge | None = None,
    ) -> None:
        self.clips = list(clips)
        self.sampler = sampler
        self.every_steps = every_steps
        self.log = log
        self.use_average = use_average
        self.judge = judge

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Validate the trained weights, or with `use_average` their average, where it is due (collective)."""
        if not (self.clips and run.due(self.every_steps)):
            return
        if self.use_average:
            assert run.average is not None
            with run.average.in_place():
                self._validate(run)
        else:
            self._validate(run)

    def _validate(self, run: RunContext) -> None:
        folder = run.folder.samples / f"step-{run.state.step:08d}"
        world, rank = run.engine.world_size, run.engine.rank
        results = torch.zeros(len(self.clips), 2, dtype=torch.float64)
        for start in range(0, len(self.clips), world):
            # The last round may have fewer clips than processes: the rest repeat a clip and drop the result.
            index = min(start + rank, len(self.clips) - 1)
            own = index == start + rank
            loss, error = self._validate_clip(run, self.clips[index], folder if own else None)
            if own:
                results[index] = torch.tensor([loss, error], dtype=torch.float64)
        total = run.engine.gather_rows(results.sum(0)).sum(0) / len(self.clips)
        run.engine.barrier()
        media = {f"samples/{clip.clip_ids[0]}": str(folder / f"{clip.clip_ids[0]}.mp4") for clip in self.clips}
        row: dict[str, Any] = {"validation_loss": float(total[0]), "validation_sample_error": float(total[1])}
        if self.judge is not None and self.judge.due(run) and run.engine.is_main:
            row |= self.judge.measure(run)
        self.log.write(run, row, media)
        if run.engine.is_main:
            logger.info(
                "step %d  validation loss %.7f  sample error %.4f  videos in %s", run.state.step, *total, folder
            )

    def _validate_clip(self, run: RunContext, clip: ClipBatch, folder: Path | None) -> tuple[float, float]:
        """Return the loss and the mean absolute error of a clip's sampled frames; write its video to `folder`."""
        loss = float(run.engine.evaluate(clip).loss)
        sample = run.engine.generate(clip, self.sampler)
        if folder is not None:
            video = panels(clip, sample)
            write_mp4(folder / f"{clip.clip_ids[0]}.mp4", video, float(clip.frames_per_second[0]))
            if self.judge is not None and self.judge.due(run):
                self.judge.keep(run, clip, sample)
        return loss, float((sample - clip.video).abs().mean())


def panels(
    clip: ClipBatch, sample: Float[Tensor, "1 3 frames height width"]
) -> UInt8[np.ndarray, "frames _enlarged _joined 3"]:
    """Join ground truth, sample and the camera path (relative to the first frame) of one clip, left to right."""
    path = relative_poses(clip.cameras.world_to_camera, torch.zeros_like(clip.seeds))[0]
    videos = [enlarged(to_frames(video[0])) for video in (clip.video, sample)]
    plot = trajectory_image({"camera": path}, size=videos[0].shape[1])
    return side_by_side([*videos, np.repeat(plot[None], clip.video.shape[2], axis=0)])
