"""What it brings to copy batches to the GPU while the step before them runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from cami2v.batch import ClipBatch
from cami2v.training.engine import Engine
from cami2v.training.prefetch import Copy, Deliveries
from tools.benchmark_report import Table
from tools.rounds import Spread, take_turns

STEPS = 5
"""Per round and way; the first of them has nothing ahead of it."""
IN_STEP, AHEAD = "engine.prefetch=false: within the step", "engine.prefetch=true: while the step before runs"


@dataclass(slots=True, kw_only=True)
class PrefetchTimes:
    """Seconds per round of `STEPS` steps, and what of them the steps waited for their batches."""

    rounds: dict[str, list[float]]
    waits: dict[str, list[float]] = field(default_factory=lambda: {IN_STEP: [], AHEAD: []})


def time_prefetch(engine: Engine, batch: ClipBatch, rounds: int, copy: Copy) -> PrefetchTimes:
    """Train on copies of a batch in host memory, brought to the device by the engine and ahead of it by `copy`."""
    found = PrefetchTimes(rounds={})

    def variant(name: str, copy: Copy | None) -> Callable[[int], None]:
        def run(number: int) -> None:
            # Loaders hand over memory that was not seen before.
            fresh = (replace(batch, video=batch.video.clone()) for _ in itertools.count())
            waited = 0.0
            with Deliveries(fresh, count=STEPS, copy=copy) as deliveries:
                for _ in range(STEPS):
                    engine.start_step(0.0)
                    asked = time.perf_counter()
                    delivered = deliveries.next()
                    waited += time.perf_counter() - asked
                    engine.forward_backward(delivered.batch, on_device=delivered.on_device)
                    engine.finish_step()
            if number >= 0:
                found.waits[name].append(waited)

        return run

    variants = {IN_STEP: variant(IN_STEP, None), AHEAD: variant(AHEAD, copy)}
    found.rounds = take_turns(variants, rounds, clock=_clock)
    return found


def prefetch_table(times: PrefetchTimes) -> Table:
    """Show both ways side by side."""
    rows = [
        [
            name,
            f"{1e3 * Spread.of(took).median / STEPS:.2f}",
            Spread.of([mine / other for mine, other in zip(took, times.rounds[IN_STEP], strict=True)]).text(3),
            f"{1e3 * Spread.of(times.waits[name]).median / STEPS:.2f}",
        ]
        for name, took in times.rounds.items()
    ]
    return Table(
        title="Batches copied to the device",
        columns=["copied", "ms per step", "times within the step", "ms waited for the batch"],
        rows=rows,
        notes=[f"{STEPS} steps a round on a batch in host memory: what a loader takes to make one is not in it."],
    )


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
