"""Frame errors of a video to the true one: is the right thing seen at the right time?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from cami2v.evaluation.folder import GROUND_TRUTH, RequestedCameras
from cami2v.evaluation.frame_metrics import FrameErrors, frame_error
from cami2v.evaluation.measures.base import Curve, Figure, JudgedClip, Measure, Row, UnusableVideo, VideoFailure
from cami2v.video import read_frames

_MEANING = "pixel values in [0, 1], mean over frames 1..T-1: frame 0 is the image the model was given"


class FrameDistances(Measure):
    """Compares videos with the true ones, frame by frame.

    A row has `failure` (a reason or null), `detail`, and `mean_squared_error` per frame.
    """

    name: ClassVar[str] = "frames"
    isolated: ClassVar[bool] = True
    figures: ClassVar[Sequence[Figure]] = (
        Figure(name="MSE", label="mean squared error", unit="", better="lower", meaning=_MEANING),
        Figure(name="PSNR_dB", label="PSNR", unit="dB", better="higher", meaning=_MEANING),
    )

    def describe(self) -> dict[str, Any]:
        """Return that there is nothing to set."""
        return {}

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
        errors = frame_error(frames, read_frames(clip.true_video)).mean_squared_error
        return {"failure": None, "detail": "", "mean_squared_error": errors.tolist()}

    def crashed(self, clip: JudgedClip) -> Row:
        """Return a failed row."""
        return _failed("crashed", "the process that read the videos died")

    def curves(self, row: Row, cameras: RequestedCameras) -> list[Curve]:
        """Return the error of every frame."""
        errors = row.get("mean_squared_error", [])
        return [Curve(label="mean squared error", unit="", values=errors)] if errors else []

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the clip's figures; identical videos have an infinite PSNR."""
        if row["failure"] is not None:
            return {figure.name: None for figure in self.figures}
        return dict(FrameErrors(mean_squared_error=np.array(row["mean_squared_error"])).figures())


def _failed(reason: str, detail: str) -> Row:
    return {"failure": reason, "detail": detail}
