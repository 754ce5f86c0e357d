"""Frechet video distance (arXiv 1812.01717): features of real and generated videos, compared as two Gaussians."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from cami2v.evaluation.frechet import FeatureMoments, frechet_distance
from cami2v.evaluation.fvd_preprocessing import convention, preprocess

FEATURES = 400


class FrechetVideoDistance(Metric):
    """Distance between the features of real and of generated videos.

    `detector` maps videos of 224x224 in [-1, 1] to 400 features (`I3D`, `TorchScriptDetector`); `preprocessing` names
    one of `fvd_preprocessing.CONVENTIONS`. Only sums are kept, and added up over processes. `compute` raises
    ValueError before both sets have two videos.
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

    def __init__(self, *, detector: nn.Module, preprocessing: str, **torchmetrics_options: Any) -> None:
        super().__init__(**torchmetrics_options)
        convention(preprocessing)
        self.detector = detector.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        for kind in ("real", "generated"):
            self.add_state(f"{kind}_count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_total", default=torch.zeros(FEATURES).double(), dist_reduce_fx="sum")
            self.add_state(f"{kind}_outer", default=torch.zeros(FEATURES, FEATURES).double(), dist_reduce_fx="sum")

    def update(self, videos: UInt8[Tensor, "batch 3 frames height width"], *, real: bool) -> None:
        """Count a batch of real or of generated videos, all frames of each."""
        with torch.no_grad():
            moments = FeatureMoments.of(self.detector(preprocess(videos, self.preprocessing)))
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


class TorchScriptDetector(nn.Module):
    """StyleGAN-V's detector: a TorchScript file of the user's, which gives features before the softmax.

    The file is code that runs: open only files you trust. Written from the detector's published call, and tried with a
    stand-in only: the file itself was never at hand. Raises ValueError where the file is absent or no TorchScript.
    """

    def __init__(self, *, path: str | Path) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file; give the TorchScript detector of StyleGAN-V")
        try:
            self.script = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise ValueError(f"{path}: not a TorchScript file ({str(error).splitlines()[0]})") from error

    def forward(self, videos: Float[Tensor, "batch 3 frames 224 224"]) -> Float[Tensor, "batch 400"]:
        """Return features of videos that are preprocessed already."""
        return self.script(videos, rescale=False, resize=False, return_features=True)
