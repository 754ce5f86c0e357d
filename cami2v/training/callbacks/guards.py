"""Stop a run that has gone wrong before it overwrites what was right."""

from __future__ import annotations

import logging
import math

from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.state import StepReport

logger = logging.getLogger(__name__)


class TrainingStoppedError(RuntimeError):
    """A guard ended the run; the message is one line for the user."""


class NonFiniteGuard(Callback):
    """Stop at a loss or gradient norm that is not finite, before the checkpoint callback sees the step.

    Every process sees the same reduced numbers, so all of them stop.
    """

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Raise TrainingStoppedError. fp16 overflow alone is no reason: the update was skipped."""
        broken = not math.isfinite(report.loss) or (not math.isfinite(report.gradient_norm) and not report.skipped)
        if not broken:
            return
        latest = run.folder.latest()
        clips = f", clips {', '.join(report.suspects[:4])}" if report.suspects else ""
        raise TrainingStoppedError(
            f"step {report.step}: loss {report.loss}, gradient norm {report.gradient_norm} (learning rate "
            f"{report.learning_rate:g}{clips}); stopped without saving. Last good checkpoint: "
            f"{latest if latest else 'none'}. Lower optimizer.learning_rate, use another engine.precision, or remove "
            "the clips"
        )


class DeadGradientGuard(Callback):
    """Warn, once, where the trained weights do not influence the loss: such a run looks healthy and learns nothing."""

    def __init__(self) -> None:
        self._warned = False

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Warn at a gradient norm of exactly 0."""
        if report.gradient_norm == 0 and not self._warned and run.engine.is_main:
            self._warned = True
            logger.warning(
                "step %d: the gradient of all trained weights is exactly 0, so they change nothing; camera control "
                "on an untrained backbone does this (load weights, or trainer.trainable=all)", report.step,
            )  # fmt: skip
