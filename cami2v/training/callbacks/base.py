"""What happens around the steps of a run, one concern per callback."""

from __future__ import annotations

from dataclasses import dataclass

from cami2v.checkpoints.save import Provenance
from cami2v.training.ema import WeightAverage
from cami2v.training.engine import Engine
from cami2v.training.run_folder import RunFolder
from cami2v.training.state import StepReport, TrainState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What callbacks may look at and act on."""

    engine: Engine
    state: TrainState
    folder: RunFolder
    provenance: Provenance
    max_steps: int
    global_batch_size: int
    average: WeightAverage | None = None

    def due(self, every_steps: int) -> bool:
        """Tell whether something that happens every so many steps, and after the last one, happens now (0: never)."""
        return every_steps > 0 and (self.state.step % every_steps == 0 or self.state.step == self.max_steps)


class Callback:
    """Hooks of a run, called by every process in the same order. The default does nothing."""

    def on_fit_start(self, run: RunContext) -> None:
        """Prepare, after weights and position are restored."""

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """React to a finished optimizer step; `run.state.step` already counts it."""

    def on_fit_end(self, run: RunContext) -> None:
        """Finish, after the last step."""


class TrainingStoppedError(RuntimeError):
    """A guard ended the run; the message is one line for the user."""
