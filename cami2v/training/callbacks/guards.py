"""Stop a run that has gone wrong before it overwrites what was right."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cami2v.batch import Cameras, ClipBatch
from cami2v.camera_control.interventions import comparison_trajectories
from cami2v.camera_control.liveness import CameraEffect, GuardSettings, as_effect, prediction_changes, verdict
from cami2v.model import VideoDiffusion
from cami2v.training.callbacks.base import Callback, RunContext, TrainingStoppedError
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.state import StepReport

logger = logging.getLogger(__name__)


class DeadGradientGuard(Callback):
    """Warn, once, where the trained weights do not influence the loss: such a run looks healthy and learns nothing.

    It speaks at the first step, whatever is trained; whether the camera works is for `CameraAliveGuard` to judge.
    """

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


class CameraAliveGuard(Callback):
    """Stop a run in which the camera changes nothing although its weights have had the steps to move.

    Adapters start at zero effect, and behind a backbone's own zeros the first few updates leave them there. So the
    guard judges once `camera_alive_step` updates were made (fp16 overflow skips some), by any effect above rounding.
    It looks before that where something is saved or validated, and again at every validation. `clips` are one or two
    clips: the first under its own trajectory, a stationary one and the second's.
    """

    def __init__(
        self,
        *,
        clips: Sequence[ClipBatch],
        guards: GuardSettings,
        validate_every_steps: int,
        checkpoint_every_steps: int,
        log: MetricsLog,
    ) -> None:
        self.clip = clips[0]
        self.others = clips[1].cameras if len(clips) > 1 else None
        self.guards = guards
        self.validate_every_steps = validate_every_steps
        self.checkpoint_every_steps = checkpoint_every_steps
        self.log = log
        self._updates = 0
        self._judged = False
        self._seen_alive = False

    def on_fit_start(self, run: RunContext) -> None:
        """Count the updates of a resumed run; skipped ones among them do no harm but an earlier verdict."""
        self._updates = run.state.step

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Look where it is due (collective); raise TrainingStoppedError for a camera without effect."""
        self._updates += not report.skipped
        ripe = self._updates >= self.guards.camera_alive_step
        waiting = not self._seen_alive and run.due(self.checkpoint_every_steps)
        if not ((ripe and not self._judged) or waiting or run.due(self.validate_every_steps)):
            return
        effect = self._measure(run)
        self._judged |= ripe
        self._seen_alive = effect.exists
        if ripe:
            row = {f"camera_effect_{name}": change for name, change in effect.changes.items() if name != "right"}
            self.log.write(run, row)
        if effect.exists:
            self._say(run, logging.INFO, f"step {report.step}: the camera is alive: {effect.describe()}")
        elif not ripe:
            last = report.step == run.max_steps
            self._say(
                run, logging.WARNING if last else logging.INFO,
                f"step {report.step}: the camera changes nothing yet ({effect.describe()}); judged after "
                f"{self.guards.camera_alive_step} updates (guards.camera_alive_step)",
            )  # fmt: skip
        else:
            self._refuse(run, effect, report)

    def _measure(self, run: RunContext) -> CameraEffect:
        comparisons = comparison_trajectories(self.clip.to(run.engine.device), others=self._others(run))
        changes = run.engine.inspect(comparisons["right"], lambda model, clip: prediction_changes(model, comparisons))
        assert isinstance(run.engine.model, VideoDiffusion)
        # Processes compute the same, but not always with the same rounding: they must not disagree on the verdict.
        return as_effect(run.engine.model, comparisons, run.engine.gather_rows(changes).amax(0))

    def _refuse(self, run: RunContext, effect: CameraEffect, report: StepReport) -> None:
        message = (
            f"step {report.step}: {verdict(effect)} after {self._updates} updates: {effect.describe()}. The run trains "
            "a model that ignores its trajectories (gradient norm of what it trains: "
            f"{report.gradient_norm:.3g}; exactly 0 on an untrained backbone). Start from trained weights "
            "(init_from=...) or train the backbone too (trainer.trainable=all), and check that trainer.trainable "
            "names the camera's weights; guards.camera_alive=warn goes on anyway"
        )
        if self.guards.camera_alive == "error":
            raise TrainingStoppedError(message)
        self._say(run, logging.WARNING, message)

    def _others(self, run: RunContext) -> Cameras | None:
        return None if self.others is None else self.others.to(run.engine.device)

    def _say(self, run: RunContext, level: int, message: str) -> None:
        if run.engine.is_main:
            logger.log(level, "%s", message)
