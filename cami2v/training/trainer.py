"""The training loop. `Trainer.fit` is the whole of it."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor, nn

from cami2v.batch import StepOutput, TrainingBatch
from cami2v.checkpoints.resume import load_checkpoint
from cami2v.checkpoints.save import Provenance
from cami2v.training import environment
from cami2v.training.bad_steps import REMEMBERED_LOSSES, BadStepSettings
from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.ema import EmaSettings, WeightAverage
from cami2v.training.engine import Engine, EngineSettings
from cami2v.training.optimizer import OptimizerSettings
from cami2v.training.preemption import StopRequest, StopRequests
from cami2v.training.prefetch import Deliveries
from cami2v.training.run_folder import RunFolder
from cami2v.training.state import StepReport, TrainState


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """Settings of conf/trainer."""

    max_steps: int
    global_batch_size: int
    """Samples per optimizer step, over all processes."""
    micro_batch_size: int
    """Samples per process and forward pass."""
    gradient_clip_norm: float | None
    trainable: str | list[str]
    """`camera`, `all`, or regular expressions over parameter names."""
    checkpoint_every_steps: int
    keep_last_checkpoints: int
    keep_every_steps: int
    """Checkpoints of multiples of this stay beside the last ones; 0: none."""
    background_checkpoints: bool
    """Write files while training goes on."""
    log_every_steps: int
    validate_every_steps: int
    validation_clips: int
    validation_split: str

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        for key in (
            "max_steps", "global_batch_size", "micro_batch_size", "checkpoint_every_steps", "keep_last_checkpoints",
            "log_every_steps",
        ):  # fmt: skip
            if getattr(self, key) < 1:
                raise ValueError(f"trainer.{key}: got {getattr(self, key)}, expected at least 1")
        for key in ("keep_every_steps", "validate_every_steps", "validation_clips"):
            if getattr(self, key) < 0:
                raise ValueError(f"trainer.{key}: got {getattr(self, key)}, expected at least 0")
        if self.gradient_clip_norm is not None and self.gradient_clip_norm <= 0:
            raise ValueError(
                f"trainer.gradient_clip_norm: got {self.gradient_clip_norm}, expected a number above 0, or null"
            )

    def accumulation_steps(self, world_size: int) -> int:
        """Return micro-batches per process and optimizer step. Raises ValueError where they do not come out even."""
        per_round = world_size * self.micro_batch_size
        if self.global_batch_size % per_round:
            raise ValueError(
                f"trainer.global_batch_size: got {self.global_batch_size}, expected a multiple of {per_round} "
                f"({world_size} processes x trainer.micro_batch_size {self.micro_batch_size})"
            )
        return self.global_batch_size // per_round


@runtime_checkable
class SampleStream(Protocol):
    """Where batches come from: sample number n is the same whatever the number of processes."""

    def stream(
        self, *, micro_batch_size: int, rank: int, world_size: int, seed: int, start: int
    ) -> Iterator[TrainingBatch]:
        """Yield this process's micro-batches without end, from global sample number `start` on."""


class Trainer:
    """Train a model whose `requires_grad` flags are set, from a checkpoint or from its present weights."""

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: SampleStream,
        settings: TrainerSettings,
        engine: EngineSettings,
        optimizer: OptimizerSettings,
        folder: RunFolder,
        provenance: Provenance,
        callbacks: Sequence[Callback],
        ema: EmaSettings | None = None,
        resume_from: Path | None = None,
        stop_requests: StopRequests | None = None,
        bad_steps: BadStepSettings | None = None,
    ) -> None:
        self.loader = loader
        self.settings = settings
        self.optimizer = optimizer
        self.seed = provenance.seed
        self.callbacks = list(callbacks)
        self.bad_steps = bad_steps
        self.stop_requests = stop_requests or StopRequests()
        self.stop = StopRequest.NONE
        """Why the last `fit` ended before `max_steps`; what it had learned is saved."""
        self.accumulation_steps = settings.accumulation_steps(environment.world_size())
        self.engine = Engine(
            model=model, settings=engine, optimizer=optimizer, accumulation_steps=self.accumulation_steps,
            micro_batch_size=settings.micro_batch_size, gradient_clip_norm=settings.gradient_clip_norm,
        )  # fmt: skip
        average = WeightAverage(self.engine.trained_state, ema) if ema is not None and ema.decay is not None else None
        self.state = TrainState()
        if resume_from is not None:
            self.state = load_checkpoint(resume_from, self.engine, provenance, average)
        if self.engine.is_main:
            # Also at step 0: a run that was killed before its first checkpoint has logged steps that come again.
            folder.clean()
            folder.trim_metrics(self.state.step)
        self.run = RunContext(
            engine=self.engine, state=self.state, folder=folder, provenance=provenance,
            max_steps=settings.max_steps, global_batch_size=settings.global_batch_size, average=average,
        )  # fmt: skip

    def fit(self) -> TrainState:
        """Train until `max_steps`, or until any process is asked to stop; return the final state."""
        for callback in self.callbacks:
            callback.on_fit_start(self.run)
        stream = self.loader.stream(
            micro_batch_size=self.settings.micro_batch_size, rank=self.engine.rank, world_size=self.engine.world_size,
            seed=self.seed, start=self.state.samples_seen,
        )  # fmt: skip
        count = (self.settings.max_steps - self.state.step) * self.accumulation_steps
        with Deliveries(stream, count=count, copy=self.engine.copies_ahead()) as batches:
            while self.state.step < self.settings.max_steps and not self.stop:
                report = self._train_step(batches)
                self.stop = report.stop
                for callback in self.callbacks:
                    callback.on_step_end(self.run, report)
            for callback in self.callbacks:
                callback.on_fit_end(self.run)
        return self.state

    def _train_step(self, batches: Deliveries) -> StepReport:
        """Take one optimizer step over `global_batch_size` samples."""
        started, waited = time.perf_counter(), 0.0
        learning_rate = self.optimizer.learning_rate_at(self.state.step, self.settings.max_steps)
        self.engine.start_step(learning_rate)
        work: list[tuple[TrainingBatch, StepOutput]] = []
        loss, exploded = math.nan, False

        def explodes(last: StepOutput) -> bool:
            nonlocal loss, exploded
            loss = self._mean_loss([*(output.loss for _, output in work), last.loss])
            exploded = self.bad_steps is not None and self.bad_steps.explodes(loss, self.state.recent_losses)
            return exploded

        while len(work) < self.accumulation_steps:
            asked = time.perf_counter()
            delivered = batches.next()
            waited += time.perf_counter() - asked
            judge = explodes if len(work) + 1 == self.accumulation_steps else None
            output = self.engine.forward_backward(delivered.batch, judge, on_device=delivered.on_device)
            work.append((delivered.batch, output))
        gradient_norm = self.engine.finish_step()
        seconds = time.perf_counter() - started
        asked_to_stop = self.stop_requests.pending()
        measured = torch.tensor([seconds, waited, _peak_memory_bytes(), asked_to_stop], dtype=torch.float64)
        rows = self.engine.gather_rows(measured)
        self.state.step += 1
        self.state.samples_seen += self.settings.global_batch_size
        self.state.seconds += float(rows[:, 0].max())
        skipped = self.engine.step_was_skipped()
        if math.isfinite(loss) and not skipped:
            self.state.recent_losses = [*self.state.recent_losses, loss][-REMEMBERED_LOSSES:]
        return StepReport(
            step=self.state.step,
            samples=self.settings.global_batch_size,
            loss=loss,
            exploded=exploded,
            learning_rate=learning_rate,
            gradient_norm=gradient_norm,
            skipped=skipped,
            seconds=float(rows[:, 0].max()),
            data_wait_seconds=float(rows[:, 1].mean()),
            peak_memory_bytes=int(rows[:, 2].max()),
            stop=StopRequest(int(rows[:, 3].max())) if self.state.step < self.settings.max_steps else StopRequest.NONE,
            work=tuple(work),
        )

    def _mean_loss(self, losses: Sequence[Tensor]) -> float:
        """Return the mean over the global batch (collective)."""
        rows = self.engine.gather_rows(torch.stack(list(losses)).double().cpu())
        # In sample order: micro-batch k of process r comes before micro-batch k of process r + 1.
        return float(rearrange(rows, "process micro -> (micro process)").mean())


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
