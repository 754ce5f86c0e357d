"""Save checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cami2v.checkpoints.save import gather_content
from cami2v.checkpoints.write import CheckpointNotWrittenError, CheckpointWriter, Retention
from cami2v.training.callbacks.base import Callback, RunContext, TrainingStoppedError
from cami2v.training.state import StepReport

logger = logging.getLogger(__name__)


class SaveCheckpoints(Callback):
    """Save every so many steps, after the last one and where the run is asked to stop.

    Training waits while tensors are gathered and copied to host memory; with `background` files are written while it
    goes on. One checkpoint is written at a time.
    """

    def __init__(self, *, every_steps: int, retention: Retention, background: bool) -> None:
        self.every_steps = every_steps
        self.retention = retention
        self.background = background
        self._writer: CheckpointWriter | None = None

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Save where it is due (collective); raise TrainingStoppedError where the last checkpoint was not written."""
        if not (run.due(self.every_steps) or report.stop):
            return
        started = time.perf_counter()
        writer = self._writer = self._writer or CheckpointWriter(run.folder, self.retention)
        with _stopping(run):
            writer.wait(run.engine)
            writer.check_space(run.engine, tensors=3 + (run.average is not None))
            content = gather_content(run.engine, run.state, run.provenance, run.average)
            writer.start(content)
            if report.stop or not self.background:
                writer.wait(run.engine)
        if run.engine.is_main:
            stalled = time.perf_counter() - started
            how = "saving" if self.background and not report.stop else "saved"
            logger.info("%s %s: training waited %.2f s", how, run.folder.checkpoint(run.state.step), stalled)

    def on_fit_end(self, run: RunContext) -> None:
        """Wait until the last checkpoint is complete (collective)."""
        if self._writer is not None:
            with _stopping(run):
                self._writer.wait(run.engine)


@contextmanager
def _stopping(run: RunContext) -> Iterator[None]:
    try:
        yield
    except CheckpointNotWrittenError as error:
        latest = run.folder.latest()
        raise TrainingStoppedError(
            f"step {run.state.step}: {error}. Last good checkpoint: {latest if latest else 'none'}. Free space or set "
            "paths.runs to another disk, then continue with resume=auto"
        ) from error
