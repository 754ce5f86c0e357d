"""The toy model on data with faults in it; a program, as engines need processes: faulty.py '[{"folder": ...}, ...]'."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from cami2v.batch import ClipBatch
from cami2v.training.bad_steps import BadStepSettings
from cami2v.training.trainer import Trainer
from tests.cami2v.training.toys import ToyStream, run_cases, train


class FaultyStream(ToyStream):
    """Samples of some numbers have a video that is not finite, of others one far too bright."""

    def __init__(self, broken: Sequence[int], bright: Sequence[int]) -> None:
        super().__init__()
        self.broken = broken
        self.bright = bright

    def stream(
        self, *, micro_batch_size: int, rank: int, world_size: int, seed: int, start: int
    ) -> Iterator[ClipBatch]:
        """Yield single clips."""
        position = start + rank
        for batch in super().stream(
            micro_batch_size=micro_batch_size, rank=rank, world_size=world_size, seed=seed, start=start
        ):
            factor = float("nan") if position in self.broken else 1e4 if position in self.bright else 1.0
            yield dataclasses.replace(batch, video=batch.video * factor)
            position += world_size


def train_faulty(
    folder: Path, kind: str, *, policy: Literal["stop", "skip"], broken: Sequence[int] = (), bright: Sequence[int] = (),
    in_a_row: int = 3, **more: Any,
) -> Trainer:  # fmt: skip
    """Train as toys.train does on faulty data."""
    return train(
        folder, kind, stream=FaultyStream(broken, bright),
        bad_steps=BadStepSettings(bad_step=policy, bad_steps_in_a_row=in_a_row, loss_explosion=100.0), **more,
    )  # fmt: skip


if __name__ == "__main__":
    run_cases(train_faulty)
