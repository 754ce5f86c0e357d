"""What happens after a step that must not change the weights."""

from __future__ import annotations

import logging
import math

from cami2v.training.bad_steps import BadStepSettings
from cami2v.training.callbacks.base import Callback, RunContext, TrainingStoppedError
from cami2v.training.engine import Precision
from cami2v.training.fault_record import MOST_RECORDS, clip_rows, write_share, write_summary
from cami2v.training.state import StepReport

logger = logging.getLogger(__name__)


class BadStepGuard(Callback):
    """Keep what a bad step trained on, then stop the run or let it go on with the next batch.

    No engine makes the update of such a step, and all processes judge by the same reduced numbers, so all of them stop
    or skip at the same step. It comes before whatever logs or saves the step.
    """

    def __init__(self, settings: BadStepSettings) -> None:
        self.settings = settings

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Record a bad step (collective); raise TrainingStoppedError where the settings say so."""
        # Under fp16 an overflow of the gradient alone is usual: the loss scale adapts.
        overflow = not math.isfinite(report.gradient_norm) and run.engine.settings.precision is not Precision.FP16
        if math.isfinite(report.loss) and not report.exploded and not overflow:
            run.state.bad_steps_in_a_row = 0
            return
        run.state.bad_steps_in_a_row += 1
        kept = self._record(run, report)
        found = f"step {report.step}: {_describe(report)}; the weights did not change; {kept}"
        if self.settings.bad_step == "skip" and run.state.bad_steps_in_a_row <= self.settings.bad_steps_in_a_row:
            if run.engine.is_main:
                logger.warning(
                    "%s. Going on with the next batch (%d in a row, faults.bad_steps_in_a_row=%d stop the run)",
                    found, run.state.bad_steps_in_a_row, self.settings.bad_steps_in_a_row,
                )  # fmt: skip
            return
        latest = run.folder.latest()
        raise TrainingStoppedError(
            f"{found}. Last good checkpoint: {latest if latest else 'none'}. Lower optimizer.learning_rate, use "
            "another engine.precision, remove the clips, or resume with faults.bad_step=skip"
        )

    def _record(self, run: RunContext, report: StepReport) -> str:
        """Write the record (collective) and say where it is; a disk that refuses must not hide the fault itself."""
        folder = run.folder.faults / f"step-{report.step:08d}"
        rows = run.engine.gather_objects(clip_rows(report, run.engine.rank))
        suspects = sorted({row["clip"] for row in rows if not math.isfinite(row["loss"])})
        named = f" (not finite: {', '.join(suspects[:4])})" if suspects else ""
        # Counted before anybody writes: processes must agree.
        earlier = len(list(run.folder.faults.iterdir())) if run.engine.is_main and run.folder.faults.is_dir() else 0
        (earlier,) = run.engine.gather_objects([earlier] if run.engine.is_main else [])
        try:
            if earlier < MOST_RECORDS:
                write_share(folder, report, run.engine.rank)
            if run.engine.is_main:
                latest = run.folder.latest()
                write_summary(
                    folder, rows, step=report.step, loss=report.loss, gradient_norm=report.gradient_norm,
                    exploded=report.exploded, learning_rate=report.learning_rate,
                    precision=run.engine.settings.precision.value, engine=run.engine.settings.kind.value,
                    processes=run.engine.world_size, last_checkpoint=str(latest) if latest else None,
                )  # fmt: skip
        except OSError as error:
            return f"its batch could not be kept ({error}){named}"
        return f"its batch is in {folder}{named}"


def _describe(report: StepReport) -> str:
    if report.exploded:
        return f"loss {report.loss:.6g} explodes, learning rate {report.learning_rate:g}"
    return f"loss {report.loss:.6g}, gradient norm {report.gradient_norm:g}, learning rate {report.learning_rate:g}"
