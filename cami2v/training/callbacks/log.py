"""Metrics: always a local JSONL file and a console line; Weights & Biases and TensorBoard on top."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from cami2v.training.callbacks.base import Callback, RunContext, TrainingStoppedError
from cami2v.training.callbacks.meters import Meter
from cami2v.training.state import StepReport
from cami2v.training.tensorboard import TensorBoardFiles, check_tensorboard

logger = logging.getLogger(__name__)

_WANDB_SECONDS = 60
"""How long its server may take to answer at the start, and to take the last rows at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """Settings of conf/logging."""

    wandb: Literal["off", "offline", "online", "auto"]
    """`auto` is online where the user is logged in, else offline."""
    project: str
    entity: str | None
    wandb_failure: Literal["offline", "stop"]
    """What follows where Weights & Biases refuses at the start: its offline files, or the end of the run."""
    tensorboard: bool
    timestep_buckets: int
    """Ranges of timesteps whose losses are told apart; 0: none."""
    gradient_norms_every_steps: int
    """At multiples of this, gradient norms by module; 0: never."""
    count_flops: bool
    """Count a step's operations from the model at the start, for TFLOP/s and MFU."""
    peak_tflops: float | None
    """Of one device in the run's number format; None: by its name, where that is known."""

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range, and where TensorBoard is asked for and missing."""
        for key in ("timestep_buckets", "gradient_norms_every_steps"):
            if getattr(self, key) < 0:
                raise ValueError(f"logging.{key}: got {getattr(self, key)}, expected at least 0")
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ValueError(f"logging.peak_tflops: got {self.peak_tflops}, expected a number above 0, or null")
        if self.tensorboard:
            check_tensorboard()


class MetricsLog(Callback):
    """Write one row of metrics every so many steps; rows of other callbacks go through `write` too.

    The JSONL file is the truth: one row per step and kind, strictly increasing, also over restarts. Where the disk
    refuses a row, it waits in memory; where Weights & Biases fails, the run goes on without.
    """

    def __init__(
        self,
        *,
        every_steps: int,
        settings: LoggingSettings,
        config: dict[str, Any],
        meters: Sequence[Meter] = (),
    ) -> None:
        self.every_steps = every_steps
        self.settings = settings
        self.config = config
        self.meters = list(meters)
        self._tracker: Any = None
        self._tensorboard: TensorBoardFiles | None = None
        self._reports: list[StepReport] = []
        self._unwritten: list[dict[str, Any]] = []

    def on_fit_start(self, run: RunContext) -> None:
        """Open the tracker, under the run's old identity if it has one."""
        if run.state.tracking_id is None:
            run.state.tracking_id = secrets.token_hex(4)
        if run.engine.is_main and self.settings.wandb != "off":
            self._tracker = self._open_wandb(run)
        if run.engine.is_main and self.settings.tensorboard:
            with self._watched_tensorboard(run):
                self._tensorboard = TensorBoardFiles(run.folder.tensorboard, step=run.state.step)
        for meter in self.meters:
            meter.on_fit_start(run)

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Write the row of this step where it is due; rates are means since the last row."""
        for meter in self.meters:
            meter.observe(run, report)
        # Without the batches: a hundred steps of videos would fill the memory.
        self._reports.append(replace(report, work=()))
        if not run.due(self.every_steps):
            return
        seconds = sum(each.seconds for each in self._reports)
        row: dict[str, Any] = {
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "samples_per_second": sum(each.samples for each in self._reports) / seconds,
            "data_wait_share": sum(each.data_wait_seconds for each in self._reports) / seconds,
            "peak_memory_bytes": report.peak_memory_bytes,
            "skipped_steps": sum(each.skipped for each in self._reports),
            "samples_seen": run.state.samples_seen,
            "train_seconds": run.state.seconds,
            "seconds_per_step": seconds / len(self._reports),
        }
        for meter in self.meters:
            row |= meter.read(run)
        self._reports.clear()
        self.write(run, row)
        if run.engine.is_main:
            logger.info(_console_line(run, row))

    def on_fit_end(self, run: RunContext) -> None:
        """Close the tracker, and say what could not be written."""
        self._flush(run)
        if self._unwritten:
            logger.error("%s: %d rows could not be written", run.folder.metrics, len(self._unwritten))
        if self._tracker is not None:
            with self._watched(run):
                self._tracker.finish()
        if self._tensorboard is not None:
            with self._watched_tensorboard(run):
                self._tensorboard.close()

    def describe(self, run: RunContext, facts: dict[str, Any]) -> None:
        """Tell the trackers what the run is (main process only)."""
        if self._tracker is not None:
            with self._watched(run):
                self._tracker.config.update(facts, allow_val_change=True)
        if self._tensorboard is not None:
            with self._watched_tensorboard(run):
                for name, content in facts.items():
                    self._tensorboard.describe(name, content, run.state.step)

    def write(self, run: RunContext, row: dict[str, Any], media: dict[str, str] | None = None) -> None:
        """Append a row of the current step (main process only); `media` are video files for the tracker."""
        if not run.engine.is_main:
            return
        finite = {key: _finite(value) for key, value in row.items()}
        self._unwritten.append({"step": run.state.step, **finite, "unix_time": round(time.time(), 3)})
        self._flush(run)
        if self._tensorboard is not None:
            with self._watched_tensorboard(run):
                self._tensorboard.write(finite, run.state.step)
        if self._tracker is not None:
            import wandb

            with self._watched(run):
                videos = {name: wandb.Video(path, format="mp4") for name, path in (media or {}).items()}
                self._tracker.log({**finite, **videos}, step=run.state.step)

    def _flush(self, run: RunContext) -> None:
        waiting = len(self._unwritten)
        try:
            while self._unwritten:
                run.folder.append_metrics(self._unwritten[0])
                del self._unwritten[0]
        except OSError as error:
            if len(self._unwritten) == 1:
                logger.warning(
                    "step %d: %s cannot be written (%s); training goes on, its rows wait in memory", run.state.step,
                    run.folder.metrics, error.strerror,
                )  # fmt: skip
        else:
            if waiting > 1:
                logger.warning("step %d: %s can be written again, no row is lost", run.state.step, run.folder.metrics)

    def _open_wandb(self, run: RunContext) -> Any:
        # Imported here: it takes a second, and `off` must not need it.
        import wandb

        def start(mode: Literal["online", "offline"]) -> Any:
            return wandb.init(
                id=run.state.tracking_id, name=run.folder.path.name, dir=str(run.folder.path), config=self.config,
                mode=mode, project=self.settings.project, entity=self.settings.entity, resume="allow",
                settings=wandb.Settings(
                    silent=True, console="off", init_timeout=_WANDB_SECONDS, finish_timeout=_WANDB_SECONDS
                ),
            )  # fmt: skip

        try:
            online = wandb.login(prompt=False) if self.settings.wandb == "auto" else self.settings.wandb == "online"
            return start("online" if online else "offline")
        except wandb.errors.Error as error:
            refused = f"logging.wandb={self.settings.wandb}: Weights & Biases refuses ({_first_line(error)})"
            if self.settings.wandb_failure == "stop":
                raise TrainingStoppedError(
                    f"{refused}; log in (wandb login), or set logging.wandb=offline or logging.wandb_failure=offline"
                ) from error
            logger.warning(
                "%s; logging offline, send it later: wandb sync %s/wandb/offline-*", refused, run.folder.path
            )
            # A failed start holds the run's identity; only ending wandb's service process sets it free.
            wandb.teardown()
            return start("offline")

    @contextmanager
    def _watched(self, run: RunContext) -> Iterator[None]:
        """Go on without Weights & Biases where it fails: metrics.jsonl has everything."""
        import wandb

        try:
            yield
        except (wandb.errors.Error, OSError) as error:
            self._tracker = None
            logger.warning(
                "step %d: Weights & Biases failed (%s); the run goes on without it, %s has every row", run.state.step,
                _first_line(error), run.folder.metrics,
            )  # fmt: skip

    @contextmanager
    def _watched_tensorboard(self, run: RunContext) -> Iterator[None]:
        """Go on without TensorBoard where its files cannot be written."""
        try:
            yield
        except OSError as error:
            self._tensorboard = None
            logger.warning(
                "step %d: TensorBoard's files cannot be written (%s); the run goes on without them, %s has every row",
                run.state.step, _first_line(error), run.folder.metrics,
            )  # fmt: skip


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _console_line(run: RunContext, row: dict[str, Any]) -> str:
    left = (run.max_steps - run.state.step) * run.global_batch_size / row["samples_per_second"]
    return (
        f"step {run.state.step}/{run.max_steps}  loss {row['loss']:.7f}  lr {row['learning_rate']:.2e}  "
        f"grad {row['gradient_norm']:.3f}  {row['samples_per_second']:.2f} samples/s  "
        f"data wait {row['data_wait_share']:.0%}  memory {row['peak_memory_bytes'] / 2**30:.2f} GiB  "
        f"left {int(left // 3600)}:{int(left % 3600 // 60):02d}:{int(left % 60):02d}"
    )
