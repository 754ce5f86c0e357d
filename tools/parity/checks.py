"""Measurements of one case: our numbers beside the published ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One compared quantity: it agrees where `error <= tolerance`."""

    name: str
    error: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """False for NaN errors too."""
        return self.error <= self.tolerance

    @property
    def severity(self) -> float:
        """Error in units of the tolerance, for finding the worst of a case."""
        if math.isnan(self.error):
            return math.inf
        if self.tolerance == 0:
            return 0.0 if self.error == 0 else math.inf
        return self.error / self.tolerance


class NotOffered(Exception):
    """A case exercises an option that this house leaves out; the message is the reason."""


class Checks:
    """Collects the measurements of one case."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []

    @property
    def worst(self) -> Measurement:
        """The measurement closest to, or furthest past, its tolerance."""
        return max(self.measurements, key=lambda measurement: measurement.severity)

    @property
    def passed(self) -> bool:
        """Whether something was measured and all of it agrees."""
        return bool(self.measurements) and all(measurement.agrees for measurement in self.measurements)

    def at_most(self, name: str, error: float, tolerance: float) -> None:
        """Record an error that the caller has measured."""
        self.measurements.append(Measurement(name=name, error=float(error), tolerance=tolerance))

    def close(
        self, name: str, ours: Tensor, theirs: Tensor, *, relative: float | None = None, maximum: float | None = None
    ) -> None:
        """Compare values: relative L2 norm of the difference, largest absolute difference, or both.

        Another shape, or non-finite numbers in other places, is an infinite error.
        """
        assert relative is not None or maximum is not None
        if ours.shape != theirs.shape:
            self.at_most(f"{name}: shape {tuple(ours.shape)}, not {tuple(theirs.shape)}", math.inf, 0.0)
            return
        ours, theirs = ours.double(), theirs.double()
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        difference = torch.where(same, 0.0, ours - theirs)
        if relative is not None:
            norm = torch.where(same & ~theirs.isfinite(), 0.0, theirs).norm().clamp_min(1e-30)
            self.at_most(f"{name} (relative)", (difference.norm() / norm).item(), relative)
        if maximum is not None:
            self.at_most(f"{name} (maximum)", difference.abs().max().item() if difference.numel() else 0.0, maximum)

    def elementwise(self, name: str, ours: Tensor, theirs: Tensor, *, relative: float, absolute: float = 0.0) -> None:
        """Compare values one by one: |ours - theirs| <= relative * |theirs| + absolute, as a relative error."""
        if ours.shape != theirs.shape:
            self.at_most(f"{name}: shape {tuple(ours.shape)}, not {tuple(theirs.shape)}", math.inf, 0.0)
            return
        ours, theirs = ours.double(), theirs.double()
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        ratio = torch.where(same, 0.0, (ours - theirs).abs() / (theirs.abs() + absolute / relative))
        self.at_most(f"{name} (elementwise)", ratio.max().item() if ratio.numel() else 0.0, relative)

    def equal(self, name: str, ours: object, theirs: object) -> None:
        """Compare exactly."""
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
            agree = torch.equal(ours, theirs)
        else:
            agree = bool(ours == theirs)
        self.at_most(
            name if agree else f"{name}: {_short(ours)}, not {_short(theirs)}", 0.0 if agree else math.inf, 0.0
        )

    def mismatches(self, name: str, count: int, total: int, *, rate: float, spare: int = 1) -> None:
        """Allow `rate` of `total` entries, and always `spare` of them, to differ (cells on a threshold)."""
        allowed = max(float(spare), rate * total)
        self.at_most(f"{name} ({total} entries)", float(count), allowed)


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
