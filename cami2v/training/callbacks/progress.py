"""A progress bar, where somebody watches."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.state import StepReport


class ProgressBar(Callback):
    """Show steps, time left and loss below the log on a terminal; say nothing where standard error is a file."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._shown = ExitStack()

    def on_fit_start(self, run: RunContext) -> None:
        """Draw the bar at the run's position (main process only)."""
        if run.engine.is_main and sys.stderr.isatty():
            self._bar = tqdm(total=run.max_steps, initial=run.state.step, unit="step", dynamic_ncols=True)
            # Log lines go above the bar instead of through it.
            self._shown.enter_context(logging_redirect_tqdm())

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {report.loss:.4f}", refresh=False)
            self._bar.update()

    def on_fit_end(self, run: RunContext) -> None:
        """Leave the finished bar where it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._shown.close()
