"""Frechet video distance (arXiv 1812.01717): features of real and generated videos, compared as two Gaussians."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor
from torchmetrics import Metric

from cami2v.evaluation.frechet import FeatureMoments, frechet_distance
from cami2v.evaluation.video_detectors import VideoDetector


class FrechetVideoDistance(Metric):
    """Distance between the features of real and of generated videos.

    `detector` is that of a flavour (`fvd_flavours.FLAVOURS[name].load(weights)`). Only sums are kept, and added up over
    processes. `compute` raises ValueError before both sets have two videos.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    real_count: Tensor
    real_total: Tensor
    real_outer: Tensor
    generated_count: Tensor
    generated_total: Tensor
    generated_outer: Tensor

    def __init__(self, *, detector: VideoDetector, **torchmetrics_options: Any) -> None:
        super().__init__(**torchmetrics_options)
        self.detector = detector.eval().requires_grad_(False)
        width = detector.features
        for kind in ("real", "generated"):
            self.add_state(f"{kind}_count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_total", default=torch.zeros(width).double(), dist_reduce_fx="sum")
            self.add_state(f"{kind}_outer", default=torch.zeros(width, width).double(), dist_reduce_fx="sum")

    def update(self, videos: UInt8[Tensor, "batch 3 frames height width"], *, real: bool) -> None:
        """Count a batch of real or of generated videos, all frames of each."""
        with torch.no_grad():
            moments = FeatureMoments.of(self.detector(videos))
        if real:
            self.real_count += moments.count
            self.real_total += moments.total
            self.real_outer += moments.outer
        else:
            self.generated_count += moments.count
            self.generated_total += moments.total
            self.generated_outer += moments.outer

    def compute(self) -> Float64[Tensor, ""]:
        """Return the distance between what was counted."""
        real = FeatureMoments(count=int(self.real_count), total=self.real_total, outer=self.real_outer)
        generated = FeatureMoments(
            count=int(self.generated_count), total=self.generated_total, outer=self.generated_outer
        )
        return frechet_distance(real, generated)
