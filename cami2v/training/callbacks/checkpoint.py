"""Save checkpoints."""

from __future__ import annotations

import logging
import time

from cami2v.checkpoints.save import save_checkpoint
from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.state import StepReport

logger = logging.getLogger(__name__)


class SaveCheckpoints(Callback):
    """Save every so many steps, after the last one and where the run is asked to stop; keep the newest."""

    def __init__(self, *, every_steps: int, keep_last: int) -> None:
        self.every_steps = every_steps
        self.keep_last = keep_last

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Save where it is due (collective)."""
        if not (run.due(self.every_steps) or report.stop):
            return
        started = time.perf_counter()
        saved = save_checkpoint(run.folder, run.engine, run.state, run.provenance, keep_last=self.keep_last)
        if run.engine.is_main:
            logger.info("saved %s in %.1f s", saved, time.perf_counter() - started)
