"""The Frechet distance between two sets of features, each taken as a Gaussian (arXiv 1706.08500, equation 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMoments:
    """Sums over features, enough for their mean and covariance: sets of any size are added batch by batch.

    Sums are of float64, which keeps the covariance of features far from zero accurate.
    """

    count: int
    total: Float64[Tensor, " features"]
    outer: Float64[Tensor, "features features"]
    """Sum of the outer products of the features with themselves."""

    @classmethod
    def of(cls, features: Float[Tensor, "count features"]) -> FeatureMoments:
        """Sum up a batch."""
        values = features.double()
        return cls(count=len(values), total=values.sum(0), outer=values.T @ values)

    def __add__(self, other: FeatureMoments) -> FeatureMoments:
        """Join two sets."""
        return FeatureMoments(
            count=self.count + other.count, total=self.total + other.total, outer=self.outer + other.outer
        )

    @property
    def mean(self) -> Float64[Tensor, " features"]:
        """Mean feature."""
        return self.total / self.count

    def covariance(self) -> Float64[Tensor, "features features"]:
        """Return the unbiased covariance. Raises ValueError for fewer than two features."""
        if self.count < 2:
            raise ValueError(f"the covariance of {self.count} feature vector(s) is undefined; give two videos or more")
        centred = self.outer - torch.outer(self.total, self.mean)
        return (centred + centred.T) / (2 * (self.count - 1))


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> Float64[Tensor, ""]:
    """Return the squared distance, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), also for singular covariances.

    The distance of two finite samples is biased upwards, more so with fewer videos: compare equal numbers only.
    Raises ValueError for fewer than two features in a set, or sets of features of different widths.
    """
    if first.total.shape != second.total.shape:
        raise ValueError(
            f"features of {len(first.total)} and {len(second.total)} numbers: both sets need the same detector"
        )
    covariances = first.covariance(), second.covariance()
    # tr (S1 S2)^(1/2) is the sum of the singular values of S1^(1/2) S2^(1/2): no root of rounding errors is taken.
    overlap = torch.linalg.svdvals(_square_root(covariances[0]) @ _square_root(covariances[1])).sum()
    spread = covariances[0].trace() + covariances[1].trace()
    return (first.mean - second.mean).square().sum() + spread - 2 * overlap


def extrapolated_distance(first: Sequence[FeatureMoments], second: Sequence[FeatureMoments]) -> float | None:
    """Return the distance that more and more features would tend to (FID-infinity, arXiv 1911.07023).

    Sets come in blocks of equal size. The distance of the first five blocks, of six, and so on is fitted by a line in
    one over their number of features; None where there are too few blocks, or features in them, for a line.
    """
    sizes, found = [], []
    joined: list[FeatureMoments] = []
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        joined = [joined[0] + one, joined[1] + other] if joined else [one, other]
        if number >= len(first) // 2 - 1 and min(moments.count for moments in joined) >= 2:
            sizes.append(2 / sum(moments.count for moments in joined))
            found.append(float(frechet_distance(*joined)))
    if len(found) < 3:
        return None
    line = torch.stack([torch.ones(len(sizes)), torch.tensor(sizes)], 1).double()
    return float(torch.linalg.lstsq(line, torch.tensor(found).double()[:, None]).solution[0, 0])


def _square_root(covariance: Float64[Tensor, "features features"]) -> Float64[Tensor, "features features"]:
    values, vectors = torch.linalg.eigh(covariance)
    noise = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    roots = torch.where(values > noise, values, 0.0).sqrt()
    return (vectors * roots) @ vectors.T
