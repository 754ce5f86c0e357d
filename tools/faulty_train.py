"""`cami2v train` with a fault in it that cannot come from outside; CAMI2V_FAULT names it (tools/inject_faults.py)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from cami2v.batch import ClipBatch, TrainingBatch
from cami2v.training import environment
from cami2v.training.engine import Engine
from data_pipeline.loader import ClipLoader
from launch import train
from launch.processes import start_processes

VARIABLE = "CAMI2V_FAULT"
STEP = 5
"""The step, from 1, in which the fault comes."""
LATE_STEP = 25
"""The step of an explosion: what a loss is held against is known only after some."""


class InjectedError(RuntimeError):
    """What a bug would raise."""


def main() -> None:
    """Train with the fault, in one process or in several."""
    faults = {"raise": _raise_on_the_last_process, "nan": _break_a_clip, "explode": _brighten_a_clip}
    faults[os.environ[VARIABLE]]()
    # The processes must have the fault, too.
    setattr(train, "start_processes", lambda module, count: start_processes("tools.faulty_train", count))  # noqa: B010
    train.main()


def _raise_on_the_last_process() -> None:
    start_step, steps = Engine.start_step, [0]

    def start(engine: Engine, learning_rate: float) -> None:
        steps[0] += 1
        if steps[0] == STEP and engine.rank == environment.world_size() - 1:
            raise InjectedError(f"injected into process {engine.rank} at step {STEP}")
        start_step(engine, learning_rate)

    setattr(Engine, "start_step", start)  # noqa: B010


def _break_a_clip() -> None:
    _spoil_a_clip(STEP, float("nan"))


def _brighten_a_clip() -> None:
    _spoil_a_clip(LATE_STEP, 1000.0)


def _spoil_a_clip(step: int, factor: float) -> None:
    stream = ClipLoader.stream

    def spoiling(loader: ClipLoader, **position: Any) -> Iterator[TrainingBatch]:
        for number, batch in enumerate(stream(loader, **position)):
            assert isinstance(batch, ClipBatch)
            # One micro-batch is one step here, and a fresh run starts with the first.
            spoilt = number == step - 1 and position["start"] == 0
            yield dataclasses.replace(batch, video=batch.video * factor) if spoilt else batch

    setattr(ClipLoader, "stream", spoiling)  # noqa: B010


if __name__ == "__main__":
    main()
