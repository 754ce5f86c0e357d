"""Account for clips that could not be used: list them, count them, and stop where they are too many."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from cami2v.batch import SkippedClip
from cami2v.training.callbacks.base import Callback, RunContext, TrainingStoppedError
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.run_folder import replace_text
from cami2v.training.state import StepReport

logger = logging.getLogger(__name__)

FEWEST_SAMPLES = 200
"""The share of replaced samples is taken of at least this many: the first bad clip of a run is not yet a rate."""
_SHOWN = 10


@runtime_checkable
class SkippingStream(Protocol):
    """A loader that replaces clips it cannot use."""

    @property
    def max_skip_rate(self) -> float:
        """Share of replaced samples above which a run stops."""

    def take_skipped(self) -> list[SkippedClip]:
        """Return what this process's batches replaced since the last call."""


class SkippedClips(Callback):
    """Write skipped_clips.jsonl and the skip metrics; stop above the rate, with the list.

    What is replaced follows from seed and sample number. So rows beyond the position of a resumed run are dropped:
    they come again.
    """

    def __init__(self, *, stream: SkippingStream, log: MetricsLog) -> None:
        self.stream = stream
        self.log = log
        self._replaced = 0
        self._reasons: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()
        self._ahead: list[SkippedClip] = []
        """Of batches that were fetched for a later step."""

    def on_fit_start(self, run: RunContext) -> None:
        """Read what a resumed run has skipped up to its checkpoint (collective)."""
        if run.engine.is_main:
            rows = _trim(run.folder.skipped_clips, run.state.samples_seen)
            self._replaced = _samples(rows)
            self._reasons = Counter(row.reason for row in rows)
            self._seen = {(row.shard, row.clip) for row in rows}
        counts = run.engine.gather_rows(torch.tensor([self._replaced], dtype=torch.float64))
        self._replaced = int(counts[0, 0])

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        """Take stock of the step (collective); raise TrainingStoppedError above `data.max_skip_rate`."""
        taken = [*self._ahead, *self.stream.take_skipped()]
        rows = [row for row in taken if row.sample < run.state.samples_seen]
        self._ahead = [row for row in taken if row.sample >= run.state.samples_seen]
        counts = run.engine.gather_rows(torch.tensor([_samples(rows)], dtype=torch.float64))
        here = int(counts.sum())
        if not here:
            return
        self._replaced += here
        everyone = sorted(run.engine.gather_objects(rows), key=lambda row: row.sample)
        if run.engine.is_main:
            self._record(run, everyone)
        served = run.state.samples_seen
        limit = self.stream.max_skip_rate
        if self._replaced > limit * max(served, FEWEST_SAMPLES):
            raise TrainingStoppedError(self._refusal(run, served, limit, everyone))

    def _record(self, run: RunContext, rows: Sequence[SkippedClip]) -> None:
        run.folder.path.mkdir(parents=True, exist_ok=True)
        with run.folder.skipped_clips.open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
        for row in rows:
            if (row.shard, row.clip) not in self._seen:
                self._seen.add((row.shard, row.clip))
                logger.warning("sample %d gets another clip (%s): %s", row.sample, row.reason, row.message)
        self._reasons.update(row.reason for row in rows)
        self.log.write(
            run,
            {
                "skipped_samples": self._replaced,
                "skip_rate": self._replaced / run.state.samples_seen,
                **{f"skipped_{reason}": count for reason, count in sorted(self._reasons.items())},
            },
        )

    def _refusal(self, run: RunContext, served: int, limit: float, rows: Sequence[SkippedClip]) -> str:
        # Only the main process has them all, and it is the one that speaks.
        clips = sorted(self._seen or {(row.shard, row.clip) for row in rows})
        more = f" and {len(clips) - _SHOWN} more" if len(clips) > _SHOWN else ""
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self._reasons.items()))
        return (
            f"step {run.state.step}: {self._replaced} of {served} samples had to be replaced, above data.max_skip_rate="
            f"{limit:g} (of at least {FEWEST_SAMPLES} samples); by reason: {reasons}; clips: "
            f"{', '.join(f'{shard}/{clip}' for shard, clip in clips[:_SHOWN])}{more}; all in "
            f"{run.folder.skipped_clips}. Copy or pack the shards again, or raise data.max_skip_rate and resume"
        )


def _samples(rows: Sequence[SkippedClip]) -> int:
    return len({row.sample for row in rows})


def _trim(path: Path, samples_seen: int) -> list[SkippedClip]:
    """Keep the rows of samples before `samples_seen`, and return them."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            row = SkippedClip(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue  # cut off when the run was killed: after the checkpoint, so it comes again
        if row.sample < samples_seen:
            rows.append(row)
    replace_text(path, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return rows
