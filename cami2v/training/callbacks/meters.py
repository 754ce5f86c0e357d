"""Columns for rows of metrics beside loss and rates (docs/telemetry.md). Reading them changes no bit of training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cami2v.training.callbacks.base import RunContext
from cami2v.training.state import StepReport


class Meter:
    """Watches every step and adds columns to the rows that are written."""

    def on_fit_start(self, run: RunContext) -> None:
        """Prepare, after weights and position are restored."""

    def observe(self, run: RunContext, report: StepReport) -> None:
        """Take in a finished step, without waiting for the device or for other processes."""

    def read(self, run: RunContext) -> dict[str, float | None]:
        """Return the columns of the steps since the last reading (collective)."""
        return {}


class LossByTimestep(Meter):
    """Mean loss of the samples whose timestep fell into each of `buckets` equal ranges; empty ranges are left out.

    One gather per row: 2 x `buckets` numbers.
    """

    def __init__(self, *, timesteps: int, buckets: int) -> None:
        self.timesteps = timesteps
        self.buckets = buckets
        self._seen: list[tuple[Tensor, Tensor]] = []

    def observe(self, run: RunContext, report: StepReport) -> None:
        """Keep timesteps and losses where they are."""
        self._seen += [(output.timesteps, output.loss_per_sample) for _, output in report.work]

    def read(self, run: RunContext) -> dict[str, float | None]:
        """Return `loss_by_timestep/<first>-<last>` for each range that was drawn (collective)."""
        timesteps = torch.cat([timesteps for timesteps, _ in self._seen]).cpu()
        losses = torch.cat([losses for _, losses in self._seen]).double().cpu()
        self._seen.clear()
        bucket = timesteps * self.buckets // self.timesteps
        sums = torch.zeros(2, self.buckets, dtype=torch.float64)
        sums[0].index_add_(0, bucket, losses)
        sums[1].index_add_(0, bucket, torch.ones_like(losses))
        total, count = run.engine.gather_rows(sums.flatten()).sum(0).view(2, self.buckets)
        return {self._name(index): float(total[index] / count[index]) for index in count.nonzero().flatten().tolist()}

    def _name(self, index: int) -> str:
        first, after = (math.ceil(edge * self.timesteps / self.buckets) for edge in (index, index + 1))
        width = len(str(self.timesteps - 1))
        return f"loss_by_timestep/{first:0{width}d}-{after - 1:0{width}d}"


class GradientNorms(Meter):
    """Gradient norm of each module before clipping, measured at every `every_steps`-th step.

    Squares of the columns add up to the square of `gradient_norm`. Costs one pass over the gradients, and under ZeRO a
    collective per trained tensor.
    """

    def __init__(self, *, every_steps: int) -> None:
        self.every_steps = every_steps
        self._row: dict[str, float | None] = {}

    def on_fit_start(self, run: RunContext) -> None:
        """Watch the first step if it is due."""
        self._watch(run)

    def observe(self, run: RunContext, report: StepReport) -> None:
        """Take what the step that just ended left, and watch the next one if it is due (collective)."""
        squares = run.engine.take_gradient_squares()
        if squares:
            # Scaled to the reported norm: under fp16 gradients still carry the loss scale.
            total = sum(squares.values())
            share = {module: square / total if total > 0 else 0.0 for module, square in squares.items()}
            self._row = {
                f"gradient_norm/{module}": report.gradient_norm * math.sqrt(part) for module, part in share.items()
            }
        self._watch(run)

    def read(self, run: RunContext) -> dict[str, float | None]:
        """Return `gradient_norm/<module>` of the last step measured."""
        row, self._row = self._row, {}
        return row

    def _watch(self, run: RunContext) -> None:
        run.engine.watch_gradients = (run.state.step + 1) % self.every_steps == 0


class Throughput(Meter):
    """Floating-point operations per second of one device, and their share of what it can do.

    `operations` are those of one micro-batch, forward and backward, counted from the model.
    """

    def __init__(self, *, operations: int, accumulation_steps: int, peak: float | None) -> None:
        self.operations_per_step = operations * accumulation_steps
        self.peak = peak
        """Operations per second of one device in the run's number format; None: not known."""
        self._steps = 0
        self._seconds = 0.0

    def observe(self, run: RunContext, report: StepReport) -> None:
        """Add the time of a step."""
        self._steps += 1
        self._seconds += report.seconds

    def read(self, run: RunContext) -> dict[str, float | None]:
        """Return `tflops_per_second` and `mfu`."""
        rate = self.operations_per_step * self._steps / self._seconds
        self._steps, self._seconds = 0, 0.0
        return {"tflops_per_second": rate / 1e12, "mfu": None if self.peak is None else rate / self.peak}
