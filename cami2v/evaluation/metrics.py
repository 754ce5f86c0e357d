"""Camera errors over many clips as torchmetrics: distributed, failures counted instead of dropped."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from cami2v.evaluation.camera_metrics import CameraErrors, TranslationUnit, camera_errors


class CameraMetric(Metric):
    """One figure of `CameraErrors.figures()` over clips.

    `update` takes true and estimated world-to-camera paths with a mask of the clips whose estimation succeeded; what
    the estimate holds for the others is ignored. `compute` returns `mean` and `median` over the successes (NaN where
    there are none), `clips` and `failed`.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    values: list[Tensor]
    failed: Tensor

    def __init__(self, *, figure: str, unit: TranslationUnit = "own", **torchmetrics_options: Any) -> None:
        super().__init__(**torchmetrics_options)
        if figure not in _FIGURES:
            raise ValueError(f"figure={figure!r}: allowed are {', '.join(_FIGURES)}")
        self.figure = figure
        self.unit: TranslationUnit = unit
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("failed", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        truth: Float64[Tensor, "batch frames 3 4"],
        estimate: Float64[Tensor, "batch frames 3 4"],
        registered: Bool[Tensor, " batch"],
    ) -> None:
        """Count a batch of clips."""
        self.failed += (~registered).sum()
        if registered.any():
            errors = camera_errors(truth[registered], estimate[registered], unit=self.unit)
            self.values.append(errors.figures()[self.figure])

    def compute(self) -> dict[str, Tensor]:
        """Return mean and median over the successes, the number of clips and of failures."""
        values = dim_zero_cat(self.values) if len(self.values) else torch.empty(0, dtype=torch.float64)
        # Not torch.median, which takes the lower of the two middle values.
        median = values.quantile(0.5) if len(values) else values.new_tensor(torch.nan)
        clips = self.failed + len(values)
        return {"mean": values.mean(), "median": median, "clips": clips, "failed": self.failed}


_NO_FRAMES = torch.zeros(2, dtype=torch.float64)
_FIGURES = tuple(CameraErrors(rotation_radians=_NO_FRAMES, translation=_NO_FRAMES, cammc=_NO_FRAMES).figures())


class RotationError(CameraMetric):
    """RotErr: published sum over frames in radians, or the mean over frames in degrees."""

    def __init__(self, *, published: bool, **torchmetrics_options: Any) -> None:
        super().__init__(figure="RotErr_sum_rad" if published else "RotErr_mean_deg", **torchmetrics_options)


class TranslationError(CameraMetric):
    """TransErr: published sum over frames, or the mean over frames; in units of the path's extent."""

    def __init__(self, *, published: bool, **torchmetrics_options: Any) -> None:
        super().__init__(figure="TransErr_sum" if published else "TransErr_mean", **torchmetrics_options)


class CameraMotionConsistency(CameraMetric):
    """CamMC: published sum over frames, or the mean over frames."""

    def __init__(self, *, published: bool, **torchmetrics_options: Any) -> None:
        super().__init__(figure="CamMC_sum" if published else "CamMC_mean", **torchmetrics_options)
