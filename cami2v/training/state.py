"""What the loop knows about its own progress, and what a finished step reports."""

from __future__ import annotations

from dataclasses import dataclass

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
    """fp16 overflow: the weights did not change."""
    seconds: float
    """Of the slowest process."""
    data_wait_seconds: float
    """Time the step waited for batches, mean over processes."""
    peak_memory_bytes: int
    """Largest of all processes: device memory where there is a GPU, else resident memory."""
    stop: StopRequest
    """What any process was asked by now; all processes see the same. NONE at the last step, which ends it anyway."""
    suspects: tuple[str, ...]
    """Clips of this process whose loss was not finite."""
