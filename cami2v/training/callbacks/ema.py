"""Keep the average of the weights up to date."""

from __future__ import annotations

from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.state import StepReport


class UpdateAverage(Callback):
    """Average after every step that changed the weights. It comes before whatever saves or validates the average."""

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Take in the new weights."""
        if run.average is not None and not report.skipped:
            run.average.update(report.step)
