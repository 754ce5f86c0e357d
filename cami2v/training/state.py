"""What the loop knows about its own progress, and what a finished step reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from cami2v.batch import StepOutput, TrainingBatch
from cami2v.training.preemption import StopRequest


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Progress of a run. Checkpoints store it, so everything else about a position follows from it."""

    step: int = 0
    """Finished optimizer steps."""
    samples_seen: int = 0
    """Samples consumed by all processes together: where the data stream goes on."""
    seconds: float = 0.0
    """Wall time spent in finished steps, over all restarts."""
    tracking_id: str | None = None
    """Identity of the run at the experiment tracker."""
    recent_losses: list[float] = field(default_factory=list)
    """Of the last good steps: what an exploding loss is measured by."""
    bad_steps_in_a_row: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One finished optimizer step."""

    step: int
    samples: int
    loss: float
    """Mean over the global batch, summed in sample order in double precision: the same for any number of processes."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    skipped: bool
    """The gradient was not finite, so the weights did not change. Under fp16 that is usual: the loss scale adapts."""
    exploded: bool
    """The loss was beyond the limit, so the update was not made."""
    seconds: float
    """Of the slowest process."""
    data_wait_seconds: float
    """Time the step waited for batches, mean over processes."""
    peak_memory_bytes: int
    """Largest of all processes: device memory where there is a GPU, else resident memory."""
    stop: StopRequest
    """What any process was asked by now; all processes see the same. NONE at the last step, which ends it anyway."""
    work: tuple[tuple[TrainingBatch, StepOutput], ...]
    """This process's micro-batches and what came of them."""
