"""Frame errors of a video to the true one: is the right thing seen at the right time?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from cami2v.evaluation.folder import GROUND_TRUTH, RequestedCameras
from cami2v.evaluation.frame_metrics import SSIM_WINDOW, FrameErrors, frame_error, structural_similarity
from cami2v.evaluation.measures.base import Curve, Figure, JudgedClip, Measure, Row, UnusableVideo, VideoFailure
from cami2v.video import read_frames

_FRAMES = "mean over frames 1..T-1: frame 0 is the image the model was given"


class FrameDistances(Measure):
    """Compares videos with the true ones, frame by frame.

    A row has `failure` (a reason or null), `detail`, `mean_squared_error` per frame, and `structural_similarity` per
    frame or null for frames too small for it.
    """

    name: ClassVar[str] = "frames"
    isolated: ClassVar[bool] = True
    figures: ClassVar[Sequence[Figure]] = (
        Figure(
            name="MSE",
            label="mean squared error",
            unit="",
            better="lower",
            meaning=f"pixel values in [0, 1], {_FRAMES}",
        ),
        Figure(
            name="PSNR_dB",
            label="PSNR",
            unit="dB",
            better="higher",
            meaning=f"each frame's own, from its mean squared error over RGB; {_FRAMES}",
        ),
        Figure(
            name="SSIM",
            label="SSIM",
            unit="",
            better="higher",
            meaning=f"structural similarity of RGB frames, Gaussian window of 11 pixels and sigma 1.5; {_FRAMES}",
        ),
    )

    def describe(self) -> dict[str, Any]:
        """Return what is compared; there is nothing to set."""
        return {"per_frame": "MSE, PSNR, SSIM"}

    def judges(self, video_set: str) -> bool:
        """Leave out the truth itself."""
        return video_set != GROUND_TRUTH

    def judge(self, clip: JudgedClip) -> Row:
        """Compare a clip with its true video."""
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return _failed(frames.reason.value, frames.detail)
        if not clip.true_video.exists():
            return _failed(VideoFailure.MISSING_VIDEO.value, f"no true {clip.true_video.name} to compare with")
        truth = read_frames(clip.true_video)
        errors = frame_error(frames, truth).mean_squared_error
        similar = structural_similarity(frames, truth).tolist() if min(truth.shape[1:3]) >= SSIM_WINDOW else None
        return {
            "failure": None,
            "detail": "",
            "mean_squared_error": errors.tolist(),
            "structural_similarity": similar,
        }

    def crashed(self, clip: JudgedClip) -> Row:
        """Return a failed row."""
        return _failed("crashed", "the process that read the videos died")

    def curves(self, row: Row, cameras: RequestedCameras) -> list[Curve]:
        """Return the error of every frame."""
        kinds = {"mean_squared_error": "mean squared error", "structural_similarity": "SSIM"}
        return [Curve(label=label, unit="", values=row[key]) for key, label in kinds.items() if row.get(key)]

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the clip's figures; identical videos have an infinite PSNR."""
        if row["failure"] is not None:
            return {figure.name: None for figure in self.figures}
        similar = row["structural_similarity"]
        return {
            **FrameErrors(mean_squared_error=np.array(row["mean_squared_error"])).figures(),
            "SSIM": None if similar is None else statistics.fmean(similar[1:]),
        }


def _failed(reason: str, detail: str) -> Row:
    return {"failure": reason, "detail": detail}
