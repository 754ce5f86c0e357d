"""Every engine on the same model and batches: time per step, peak memory, what optimizer state a process holds."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch.distributed import TCPStore

from cami2v.batch import ClipBatch
from cami2v.training.engine import Engine, EngineSettings
from cami2v.training.optimizer import OptimizerSettings
from launch.build import build_model
from launch.compose import compose_config, settings
from tools.benchmark_report import Report, Table, machine
from tools.benchmark_steps import CAMERA_OF
from tools.orbit_clip import orbit_batch
from tools.peak_memory import peak_bytes, reset_peak
from tools.rounds import Spread
from tools.step_parts import SIZE_OF

KINDS = ("single", "ddp", "zero1", "zero2", "zero3")
REFERENCE = "ddp"
WARM_UP = 2
PRELOADED = ("deepspeed", "open_clip", "torch._inductor.compile_fx")
"""What a process imports late, seconds of it."""
OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_", "ACCELERATE_")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginesCase:
    """What is trained, and how often."""

    backbone: str
    device: str
    frames: int
    rounds: int
    processes: int
    steps: int
    """Timed per round, after `WARM_UP` others."""
    precisions: tuple[str, ...]
    kinds: tuple[str, ...]

    def check(self) -> None:
        """Raise ValueError for more processes than the machine has GPUs, and for nothing to compare with."""
        if REFERENCE not in self.kinds:
            raise ValueError(
                f"--engines: got {', '.join(self.kinds)}; {REFERENCE} is what the others are compared with"
            )
        gpus = torch.cuda.device_count()
        if self.device == "cuda" and self.processes > gpus:
            raise ValueError(f"--processes: got {self.processes}, but PyTorch finds {gpus} GPUs here; use {gpus}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one process measured."""

    seconds: tuple[float, ...]
    peak_bytes: int
    """On the CPU above what it held before it built the model."""
    optimizer_bytes: int
    losses: tuple[float, ...]


def measure_engines(case: EnginesCase) -> Report:
    """Train under every engine in turn, in new processes each time. Raises ValueError where processes die."""
    case.check()
    found: dict[str, dict[str, list[list[Found]]]] = {
        precision: {kind: [] for kind in case.kinds} for precision in case.precisions
    }
    for number in range(case.rounds):
        first = number % len(case.kinds)
        for kind in [*case.kinds[first:], *case.kinds[:first]]:
            for precision in case.precisions:
                found[precision][kind].append(_train_together(case, kind, precision))
    tables = [_table(case, precision, by_kind) for precision, by_kind in found.items()]
    numbers = {
        precision: {kind: [list(map(dataclasses.asdict, group)) for group in rounds] for kind, rounds in each.items()}
        for precision, each in found.items()
    }
    return Report(
        name="engines", tables=tables, numbers={**numbers, "processes": case.processes}, machine=machine(case.device)
    )


def _train_together(case: EnginesCase, kind: str, precision: str) -> list[Found]:
    """Train in as many processes as the engine takes; return what each found."""
    # Forked where everything is imported already; a process that may use CUDA starts anew.
    context = multiprocessing.get_context("spawn" if case.device == "cuda" else "forkserver")
    if case.device != "cuda":
        ours = [name for name in sys.modules if name.startswith("tools.")]
        context.set_forkserver_preload([*ours, *PRELOADED])
    count = 1 if kind == "single" else case.processes
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    if kind != "single":
        # The store lives here and its port is the kernel's choice.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        environment |= {
            "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        }  # fmt: skip
    started = []
    for rank in range(count):
        ranked = environment | ({} if kind == "single" else {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        connection, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_train, args=(case, kind, precision, ranked, theirs), daemon=True)  # type: ignore[attr-defined]  # every context has it
        process.start()
        theirs.close()
        started.append((process, connection))
    found = []
    for process, connection in started:
        try:
            found.append(connection.recv())
        except EOFError as error:
            process.join()
            for other, _ in started:
                other.kill()
            raise ValueError(f"engine={kind}, {precision}: a process ended with code {process.exitcode}") from error
    for process, _ in started:
        process.join()
    return found


def _train(case: EnginesCase, kind: str, precision: str, environment: dict[str, str], answer: Connection) -> None:
    """Be one process of a run, and answer what it measured."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    for library in ("accelerate", "DeepSpeed"):
        logging.getLogger(library).setLevel(logging.WARNING)
    before = 0 if case.device == "cuda" else reset_peak(torch.device("cpu"))
    camera = CAMERA_OF[case.backbone]
    overrides = [f"backbone={case.backbone}", f"camera={camera}", f"data.frames={case.frames}", f"engine={kind}"]
    config = compose_config("train", [*overrides, f"engine.precision={precision}"])
    model = build_model(config).train()
    model.select_trainable("all")
    accumulation = case.processes if kind == "single" else 1
    engine = Engine(
        model=model, settings=settings(config.engine, EngineSettings, "engine"),
        optimizer=settings(config.optimizer, OptimizerSettings, "optimizer"), accumulation_steps=accumulation,
        micro_batch_size=1, gradient_clip_norm=0.5,
    )  # fmt: skip
    seconds, losses = [], []
    for step in range(WARM_UP + case.steps):
        engine.barrier()
        begun = _now(engine)
        losses.append(_step(engine, [_sample(case, step, engine.rank + micro) for micro in range(accumulation)]))
        seconds.append(_now(engine) - begun)
    found = Found(
        seconds=tuple(seconds[WARM_UP:]), peak_bytes=peak_bytes(engine.device) - before,
        optimizer_bytes=engine.optimizer_bytes, losses=tuple(losses),
    )  # fmt: skip
    answer.send(found)
    answer.close()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _step(engine: Engine, batches: Sequence[ClipBatch]) -> float:
    """Take an optimizer step; return the mean loss over the global batch."""
    engine.start_step(1e-4)
    loss = torch.stack([engine.forward_backward(batch).loss for batch in batches]).mean()
    engine.finish_step()
    return float(engine.gather_rows(loss.double().cpu()[None]).mean())


def _sample(case: EnginesCase, step: int, number: int) -> ClipBatch:
    """Return a sample of the global batch of a step: the orbit's clip with a seed of its own."""
    clip = orbit_batch(case.frames, SIZE_OF[case.backbone])
    return dataclasses.replace(clip, seeds=torch.tensor([1 + step * case.processes + number]))


def _now(engine: Engine) -> float:
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _table(case: EnginesCase, precision: str, found: dict[str, list[list[Found]]]) -> Table:
    # A step is over when its last process is done.
    seconds = {
        kind: [statistics.median(map(max, zip(*(each.seconds for each in group), strict=True))) for group in rounds]
        for kind, rounds in found.items()
    }
    peaks = {kind: max(each.peak_bytes for group in rounds for each in group) for kind, rounds in found.items()}
    rows = [
        [
            f"engine={kind}",
            f"{1e3 * Spread.of(seconds[kind]).median:.0f}",
            Spread.of([mine / other for mine, other in zip(seconds[kind], seconds[REFERENCE], strict=True)]).text(2),
            f"{peaks[kind] / 2**20:.0f}",
            f"{peaks[kind] / peaks[REFERENCE]:.2f}",
            f"{max(each.optimizer_bytes for group in rounds for each in group) / 2**20:.1f}",
        ]
        for kind, rounds in found.items()
    ]
    height, width = SIZE_OF[case.backbone]
    where = "NCCL" if case.device == "cuda" else "gloo, one thread each; memory above what a process held before"
    return Table(
        title=f"Engines, {precision}, {case.processes} processes",
        columns=["engine", "ms per step", "times ddp", "peak MiB per process", "times ddp", "optimizer state MiB"],
        rows=rows,
        notes=[
            f"backbone={case.backbone}, camera={CAMERA_OF[case.backbone]}, all weights train, {case.processes} samples "
            f"of {case.frames} x {height} x {width} a step (single: one after the other in one process), {where}; "
            f"{case.rounds} rounds of {case.steps} steps in new processes; wall-clock time."
        ],
    )
