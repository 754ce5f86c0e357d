"""What the trainer adds to a bare training step, how long it waits for a checkpoint, how soon a resumed run trains."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from cami2v.batch import ClipBatch, TrainingBatch
from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.integrity import intact_checkpoint
from cami2v.checkpoints.save import Provenance
from cami2v.checkpoints.write import Retention
from cami2v.model import VideoDiffusion
from cami2v.training.bad_steps import BadStepSettings
from cami2v.training.callbacks.bad_steps import BadStepGuard
from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.callbacks.checkpoint import SaveCheckpoints
from cami2v.training.callbacks.ema import UpdateAverage
from cami2v.training.callbacks.guards import DeadGradientGuard
from cami2v.training.callbacks.log import LoggingSettings, MetricsLog
from cami2v.training.callbacks.meters import GradientNorms, LossByTimestep
from cami2v.training.engine import EngineSettings, autocast
from cami2v.training.optimizer import OptimizerSettings, build_optimizer
from cami2v.training.run_folder import RunFolder
from cami2v.training.state import StepReport
from cami2v.training.trainer import Trainer, TrainerSettings
from launch.build import build_model
from launch.compose import compose_config, settings
from tools.benchmark_prefetch import PrefetchTimes, prefetch_table, time_prefetch
from tools.benchmark_report import Report, Table, machine
from tools.benchmark_steps import CAMERA_OF
from tools.orbit_clip import orbit_batch
from tools.rounds import Spread
from tools.step_parts import SIZE_OF

WARM_UP, SAVES = 2, 3
LIMIT = 1.05
"""What the trainer's step may cost over the bare one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model and how it is trained."""

    backbone: str
    device: torch.device
    frames: int
    rounds: int


@dataclass(slots=True, kw_only=True)
class Timings:
    """Seconds of wall-clock time and, of the steps, of this process's CPU; one entry per round."""

    bare: list[tuple[float, float]] = field(default_factory=list)
    trainer: list[tuple[float, float]] = field(default_factory=list)
    bare_beside_norms: list[tuple[float, float]] = field(default_factory=list)
    trainer_with_norms: list[tuple[float, float]] = field(default_factory=list)
    saved: list[float] = field(default_factory=list)
    handed_over: list[float] = field(default_factory=list)
    written_behind: list[float] = field(default_factory=list)
    checkpoint_bytes: int = 0
    resume: dict[str, float] = field(default_factory=dict)
    prefetch: PrefetchTimes | None = None
    """On a GPU only: elsewhere nothing is copied."""


def measure_trainer(backbone: str, device: torch.device, frames: int, rounds: int) -> Report:
    """Time the trainer beside a bare loop over the same model, in turn; then checkpoints and a resume."""
    case = Case(backbone=backbone, device=device, frames=frames, rounds=rounds)
    timings = Timings()
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        model = _model(case)
        trainer = _trainer(case, model, folder, steps=WARM_UP + 2 * rounds + 2 * SAVES, timings=timings)
        trainer.fit()
        latest = folder.latest()
        assert latest is not None
        timings.checkpoint_bytes = sum(file.stat().st_size for file in latest.iterdir())
        parameters = trainer.engine.trained_parameters
        copy = trainer.engine.copies_ahead()
        if copy is not None:
            timings.prefetch = time_prefetch(trainer.engine, _clip(case), rounds, copy)
        del trainer, model
        timings.resume = _resume(case, folder)
    return _report(case, timings, parameters)


class _OneClip:
    """The same clip without end: the loader has its own benchmark."""

    def __init__(self, clip: ClipBatch) -> None:
        self.clip = clip

    def stream(
        self, *, micro_batch_size: int, rank: int, world_size: int, seed: int, start: int
    ) -> Iterator[TrainingBatch]:
        while True:
            yield self.clip


class _Beside(Callback):
    """Take a bare step after each of the trainer's, and the time of both; then save checkpoints either way.

    The trainer's time is all that passes between two bare steps. `GradientNorms` measures at even steps.
    """

    def __init__(self, case: Case, model: VideoDiffusion, clip: ClipBatch, timings: Timings) -> None:
        self.rounds = case.rounds
        self.model, self.clip, self.timings = model, clip, timings
        self.settings = _engine_settings(case)
        self.optimizer = build_optimizer(_optimizer_settings(), [p for p in model.parameters() if p.requires_grad])
        keep = Retention(last=1, every_steps=0)
        self.saving = SaveCheckpoints(every_steps=1, retention=keep, background=False)
        self.handing_over = SaveCheckpoints(every_steps=1, retention=keep, background=True)
        self.last = _clocks()

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        timed = report.step > WARM_UP
        if timed and report.step > WARM_UP + 2 * self.rounds:
            self._save(run, report)
            return
        theirs = _since(self.last)
        started = _clocks()
        self._bare_step()
        mine = _since(started)
        if timed and report.step % 2 == 0:
            self.timings.bare_beside_norms.append(mine)
            self.timings.trainer_with_norms.append(theirs)
        elif timed:
            self.timings.bare.append(mine)
            self.timings.trainer.append(theirs)
        self.last = _clocks()

    def _bare_step(self) -> None:
        with autocast(self.settings.precision.autocast_dtype, self.clip.video.device):
            loss = self.model(self.clip).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _save(self, run: RunContext, report: StepReport) -> None:
        # One after the other, each complete before the next: what is timed is one save.
        started = time.perf_counter()
        if report.step % 2:
            self.saving.on_step_end(run, report)
            self.timings.saved.append(time.perf_counter() - started)
        else:
            self.handing_over.on_step_end(run, report)
            self.timings.handed_over.append(time.perf_counter() - started)
            self.handing_over.on_fit_end(run)
            self.timings.written_behind.append(time.perf_counter() - started)


def _trainer(
    case: Case,
    model: VideoDiffusion,
    folder: RunFolder,
    *,
    steps: int,
    timings: Timings | None = None,
    resume_from: Path | None = None,
) -> Trainer:
    """Build the trainer with the callbacks of `cami2v train`, a row at every step."""
    clip = _clip(case).to(case.device)
    logs = settings(compose_config("train", ["logging=off"]).logging, LoggingSettings, "logging")
    meters = [LossByTimestep(timesteps=model.schedule.timesteps, buckets=10), GradientNorms(every_steps=2)]
    faults = settings(compose_config("train").faults, BadStepSettings, "faults")
    callbacks: list[Callback] = [
        BadStepGuard(faults), DeadGradientGuard(), UpdateAverage(),
        MetricsLog(every_steps=1, settings=logs, config={}, meters=meters if timings else meters[:1]),
    ]  # fmt: skip
    if timings is not None:
        callbacks.append(_Beside(case, model, clip, timings))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    provenance = Provenance(
        config_sha256="-", manifest_sha256="-", scale_policy="relative", git_revision="-", seed=0,
        base_fingerprint=fingerprint(model, trained), global_batch_size=1, micro_batch_size=1,
    )  # fmt: skip
    given = settings(compose_config("train").trainer, TrainerSettings, "trainer")
    return Trainer(
        model=model, loader=_OneClip(clip), engine=_engine_settings(case), optimizer=_optimizer_settings(),
        settings=replace(given, max_steps=steps, global_batch_size=1, micro_batch_size=1),
        folder=folder, provenance=provenance, callbacks=callbacks, resume_from=resume_from, bad_steps=faults,
    )  # fmt: skip


def _resume(case: Case, folder: RunFolder) -> dict[str, float]:
    """Return the seconds of each part of continuing from the last checkpoint, up to the end of the first step."""
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(part: str) -> None:
        nonlocal started
        seconds[part] = time.perf_counter() - started
        started = time.perf_counter()

    subprocess.run([sys.executable, "-c", "import launch.train"], check=True)
    lap("start Python and import")
    model = _model(case)
    lap("build the model")
    latest = folder.latest()
    assert latest is not None
    checkpoint = intact_checkpoint(folder, latest, fall_back=True)
    lap("check the checkpoint's hashes")
    trainer = _trainer(
        case, model, folder, steps=int(checkpoint.name.removeprefix("step-")) + 1, resume_from=checkpoint
    )
    lap("build the trainer and load it")
    trainer.fit()
    lap("first step")
    return seconds


def _clip(case: Case) -> ClipBatch:
    return orbit_batch(case.frames, SIZE_OF[case.backbone])


def _model(case: Case) -> VideoDiffusion:
    overrides = [f"backbone={case.backbone}", f"camera={CAMERA_OF[case.backbone]}", f"data.frames={case.frames}"]
    model = build_model(compose_config("train", overrides)).to(case.device).train()
    model.select_trainable("all")
    return model


def _engine_settings(case: Case) -> EngineSettings:
    precision = "bf16" if case.device.type == "cuda" else "fp32"
    return settings(compose_config("train", [f"engine.precision={precision}"]).engine, EngineSettings, "engine")


def _optimizer_settings() -> OptimizerSettings:
    return settings(compose_config("train").optimizer, OptimizerSettings, "optimizer")


def _clocks() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _clocks()
    return wall - start[0], cpu - start[1]


def _ratio(variant: Sequence[tuple[float, float]], bare: Sequence[tuple[float, float]], clock: int) -> str:
    return Spread.of([mine[clock] / other[clock] for mine, other in zip(variant, bare, strict=True)]).text(3)


def _report(case: Case, timings: Timings, parameters: int) -> Report:
    height, width = SIZE_OF[case.backbone]
    bare = Spread.of([wall for wall, _ in timings.bare]).median
    steps = Table(
        title="What the trainer adds to a step",
        columns=["step", "ms", "times the bare step", "the same in CPU time"],
        rows=[
            ["bare: forward, backward, AdamW", f"{1e3 * bare:.1f}", "1", "1"],
            *(
                [name, f"{1e3 * Spread.of([wall for wall, _ in took]).median:.1f}", _ratio(took, beside, 0),
                 _ratio(took, beside, 1)]
                for name, took, beside in (
                    ("trainer, a row of metrics per step", timings.trainer, timings.bare),
                    ("the same with gradient norms by module", timings.trainer_with_norms, timings.bare_beside_norms),
                )
            ),
        ],
        notes=[
            f"backbone={case.backbone}, one clip of {case.frames} x {height} x {width} in memory, all weights train "
            f"({parameters / 1e6:.1f} M), {_engine_settings(case).precision.value}, {case.rounds} rounds; the trainer "
            f"also clips, draws and logs. Allowed: {LIMIT} times."
        ],
    )  # fmt: skip
    stall = Table(
        title="How long training waits for a checkpoint",
        columns=["checkpoint", "seconds"],
        rows=[
            ["trainer.background_checkpoints=false", Spread.of(timings.saved).text(3)],
            ["trainer.background_checkpoints=true", Spread.of(timings.handed_over).text(3)],
            ["until that one is complete on disk", Spread.of(timings.written_behind).text(3)],
        ],
        notes=[f"{timings.checkpoint_bytes / 1e6:.1f} MB each, {SAVES} saves."],
    )
    resume = Table(
        title="From the command to the first step of a resumed run",
        columns=["part", "seconds"],
        rows=[
            *([part, f"{seconds:.2f}"] for part, seconds in timings.resume.items()),
            ["together", f"{sum(timings.resume.values()):.2f}"],
        ],
        notes=["Once; opening shards and starting loader workers are not in it."],
    )
    numbers = {name: getattr(timings, name) for name in Timings.__dataclass_fields__}
    numbers["prefetch"] = None if timings.prefetch is None else asdict(timings.prefetch)
    copied = [] if timings.prefetch is None else [prefetch_table(timings.prefetch)]
    return Report(
        name="trainer", tables=[steps, *copied, stall, resume], numbers={**numbers, "limit": LIMIT},
        machine=machine(case.device.type),
    )  # fmt: skip
