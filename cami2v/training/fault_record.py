"""What a bad step trained on, kept in the run's folder for inspection: <run>/faults/step-00000012/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cami2v.batch import StepOutput, TrainingBatch
from cami2v.training.state import StepReport

MOST_RECORDS = 5
"""A run that skips many bad steps keeps the batches of the first so many."""
SUMMARY = "fault.json"


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One process's share of a bad step: what went in and what came out, on the CPU."""

    batch: TrainingBatch
    output: StepOutput


def clip_rows(report: StepReport, rank: int) -> list[dict[str, Any]]:
    """Return a row per sample of this process: its clip, seed, timestep and loss."""
    return [
        {"rank": rank, "clip": clip, "seed": seed, "timestep": timestep, "loss": loss}
        for batch, output in report.work
        for clip, seed, timestep, loss in zip(
            batch.clip_ids, batch.seeds.tolist(), output.timesteps.tolist(), output.loss_per_sample.tolist(),
            strict=True,
        )
    ]  # fmt: skip


def write_share(folder: Path, report: StepReport, rank: int) -> None:
    """Write this process's micro-batches to rank-<n>.pt."""
    folder.mkdir(parents=True, exist_ok=True)
    share = [MicroBatch(batch.to("cpu"), output.to("cpu")) for batch, output in report.work]
    torch.save(share, folder / f"rank-{rank}.pt")


def write_summary(folder: Path, rows: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Write fault.json: `facts` about the step, and a row per sample."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).write_text(json.dumps(facts | {"samples": list(rows)}, indent=2) + "\n")


def read_share(path: Path) -> list[MicroBatch]:
    """Read a rank-<n>.pt. It is a pickle: open only files of your own runs."""
    share: list[MicroBatch] = torch.load(path, weights_only=False)
    return share
