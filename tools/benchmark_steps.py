"""What camera control costs per training and per sampling step, next to the bare backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from cami2v.compilation import CompileMode, check_compilation, check_graphs
from tools.benchmark_report import Report, Table, machine
from tools.machine_ceilings import Ceilings, clock, measure_ceilings
from tools.rounds import Spread, take_turns
from tools.step_parts import SIZE_OF, Denoising

Part = Literal["training", "sampling"]
BARE = "bare backbone"
CAMI2V = "CamI2V"
DENSE_MASK = "CamI2V, masks written out"
CAMERA = "CamI2V, only its own weights train"
ONE_BY_ONE = "CamI2V, branches one by one"
PARTS: tuple[Part, ...] = ("training", "sampling")
CAMERA_OF = {"tiny": "cami2v", "dynamicrafter_256": "cami2v", "dynamicrafter_512": "cami2v_512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCase:
    """Which steps are measured."""

    backbone: str
    device: torch.device
    frames: int
    rounds: int
    parts: tuple[Part, ...]
    compile: str | None
    """Backend of torch.compile for more rows; None: none are compiled."""
    compile_modes: tuple[CompileMode, ...]
    """Modes of inductor for further rows."""
    cami2v: str
    """The preset of conf/camera that stands for CamI2V."""

    @property
    def precision(self) -> torch.dtype | None:
        """Return the dtype of autocast, None on the CPU."""
        return torch.bfloat16 if self.device.type == "cuda" else None


@dataclass(slots=True, kw_only=True)
class Row:
    """A kind of step: what it runs, and what it was found to take."""

    run: Callable[[], object]
    operations: float
    peak: int = 0


def measure_steps(case: StepCase) -> Iterator[Report]:
    """Time training steps with cached latents, and guided sampling steps, of every method on one backbone.

    Yields a report for each part. Raises ValueError for a compilation that there is not, or not on this device.
    """
    for mode in (None, *case.compile_modes):
        check_compilation(case.compile, mode)
        check_graphs(case.compile, mode, on_gpu=case.device.type == "cuda")
    ceilings = measure_ceilings(case.device, case.precision or torch.float32)
    models = {
        BARE: Denoising.of(case.backbone, "none", case.frames, case.device, case.precision),
        "MotionCtrl": Denoising.of(case.backbone, "motionctrl", case.frames, case.device, case.precision),
        "CameraCtrl": Denoising.of(case.backbone, "cameractrl", case.frames, case.device, case.precision),
        CAMI2V: Denoising.of(case.backbone, case.cami2v, case.frames, case.device, case.precision),
    }
    for part in case.parts:
        rows = ROWS[part](case, models)
        seconds = _timed(rows, case)
        numbers = {
            "seconds": seconds,
            "operations": {name: row.operations for name, row in rows.items()},
            "ceilings": dataclasses.asdict(ceilings),
            "backbone": case.backbone,
            "camera": case.cami2v,
            "frames": case.frames,
        }
        table = _table(TITLES[part], rows, seconds, ceilings, _notes(case, ceilings))
        where = machine(case.device.type)
        yield Report(name=f"{part}-steps-{case.backbone}", tables=[table], numbers=numbers, machine=where)


def _training(case: StepCase, models: dict[str, Denoising]) -> dict[str, Row]:
    cami2v = models[CAMI2V]
    models = models | {CAMERA: dataclasses.replace(cami2v, trainable="camera")}
    rows = {
        name: Row(run=model.training_step, operations=model.operations(model.training_step))
        for name, model in models.items()
    }
    written_out = dataclasses.replace(cami2v, masks_written_out=True)
    rows[DENSE_MASK] = Row(run=written_out.training_step, operations=rows[CAMI2V].operations)
    return rows | _compiled(case, models, rows, lambda model: model.training_step)


def _sampling(case: StepCase, models: dict[str, Denoising]) -> dict[str, Row]:
    rows = {
        name: Row(run=model.sampling_step, operations=model.operations(model.sampling_step))
        for name, model in models.items()
    }
    one_by_one = dataclasses.replace(models[CAMI2V], joint=False)
    rows[ONE_BY_ONE] = Row(run=one_by_one.sampling_step, operations=rows[CAMI2V].operations)
    return rows | _compiled(case, models, rows, lambda model: model.sampling_step)


def _compiled(
    case: StepCase,
    models: dict[str, Denoising],
    rows: dict[str, Row],
    step: Callable[[Denoising], Callable[[], object]],
) -> dict[str, Row]:
    if case.compile is None:
        return {}
    return {
        ", ".join([name, "compiled", *([mode] if mode else [])]): Row(
            run=step(models[name].compiled(case.compile, mode)), operations=rows[name].operations
        )
        for mode in (None, *case.compile_modes)
        for name in (BARE, CAMI2V)
    }


ROWS: dict[Part, Callable[[StepCase, dict[str, Denoising]], dict[str, Row]]] = {
    "training": _training,
    "sampling": _sampling,
}
TITLES: dict[Part, str] = {
    "training": "Training step, all weights train, latents and tokens cached",
    "sampling": "Sampling step, both guidance branches",
}


def _timed(rows: dict[str, Row], case: StepCase) -> dict[str, list[float]]:
    on_gpu = case.device.type == "cuda"

    def variant(row: Row) -> Callable[[int], None]:
        def run(_: int) -> None:
            before = 0
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            row.run()
            if on_gpu:
                torch.cuda.synchronize()
                row.peak = max(row.peak, torch.cuda.max_memory_allocated() - before)

        return run

    return take_turns({name: variant(row) for name, row in rows.items()}, case.rounds, clock=lambda: clock(case.device))


def _table(
    title: str, rows: dict[str, Row], seconds: dict[str, list[float]], ceilings: Ceilings, notes: list[str]
) -> Table:
    on_gpu = any(row.peak for row in rows.values())
    bare_peak = rows[BARE].peak or 1
    written = [
        [
            name,
            f"{1e3 * Spread.of(took).median:.1f}",
            Spread.of([mine / bare for mine, bare in zip(took, seconds[BARE], strict=True)]).text(2),
            f"{rows[name].operations / 1e12:.3g}",
            f"{rows[name].operations / Spread.of(took).median / ceilings.operations:.0%}",
            *([f"{rows[name].peak / 2**30:.2f}", f"{rows[name].peak / bare_peak:.2f}"] if on_gpu else []),
        ]
        for name, took in seconds.items()
    ]
    columns = ["step", "ms", "times the bare backbone", "useful TFLOP", "of the product's rate (MFU)"]
    columns += ["peak GiB above the weights", "times bare"] if on_gpu else []
    return Table(title=title, columns=columns, rows=written, notes=notes)


def _notes(case: StepCase, ceilings: Ceilings) -> list[str]:
    height, width = SIZE_OF[case.backbone]
    where = machine("cuda")["hardware"] if case.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return [
        f"backbone={case.backbone}, CamI2V is camera={case.cami2v}, one clip of {case.frames} x {height} x {width}, "
        f"{'bf16' if case.precision else 'fp32'}, {where}, {case.rounds} rounds; "
        f"{'wall-clock' if case.precision else 'CPU'} time. A training step encodes the cameras, "
        "goes forward and backward; optimizer and frozen towers are left out. A sampling step has its cameras encoded.",
        "Operations are those of an eager step, what activation checkpointing computes again included; of epipolar "
        "attention only pairs within the bands count.",
        f"Ceilings, measured before: {ceilings.what}.",
    ]
