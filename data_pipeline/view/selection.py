"""Which clips of a shard set or a folder are looked at."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.layouts.clip import PosedClip, ReadSettings
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME
from data_pipeline.validate.findings import Observation
from data_pipeline.validate.raw import RawClipJob
from data_pipeline.validate.shards import ShardClipJob, list_set, samples_of

Job = ShardClipJob | RawClipJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Named clips, or some drawn at random."""

    clips: tuple[str, ...] | None
    """Ids, shown in this order; None: drawn."""
    split: str | None
    """None: of all splits."""
    count: int
    """How many are drawn."""
    seed: int

    def choose(self, source: Path, reading: ReadSettings) -> tuple[Job, ...]:
        """Return the chosen clips of a shard set (it has manifest.json) or a folder of posed videos, ordered by id.

        Raises ValueError for a source that is neither, an unknown id or split, or no clips.
        """
        if self.count < 1:
            raise ValueError(f"select.count={self.count}: must be at least 1")
        jobs = {_id(job): job for job in _jobs(source, reading)}
        splits = sorted({str(_split(job)) for job in jobs.values()})
        if self.clips is not None:
            return tuple(_known(jobs, clip_id, source) for clip_id in self.clips)
        names = sorted(name for name, job in jobs.items() if self.split in (None, _split(job)))
        if not names:
            raise ValueError(
                f"select.split={self.split}: {source} has no such clips (it has {len(jobs)}, in the splits "
                f"{', '.join(splits) or 'none'})"
            )
        drawn = random.Random(self.seed).sample(names, min(self.count, len(names)))
        return tuple(jobs[name] for name in sorted(drawn))


def _jobs(source: Path, reading: ReadSettings) -> Iterable[Job]:
    if not (source / FILE_NAME).is_file():
        clips: Sequence[PosedClip] = open_source(source, reading).clips
        return [RawClipJob(clip=clip, compare=True) for clip in clips]
    listed = list_set(source)
    if isinstance(listed, Observation):
        raise ValueError(f"{source / FILE_NAME}: cannot be read ({listed.found})")
    return [job for shard in listed.shards for job in samples_of(listed, shard)]


def _known(jobs: dict[str, Job], clip_id: str, source: Path) -> Job:
    if clip_id not in jobs:
        some = ", ".join(sorted(jobs)[:3])
        raise ValueError(f"select.clips: {source} has no clip {clip_id!r} (its {len(jobs)} clips are {some}, ...)")
    return jobs[clip_id]


def _id(job: Job) -> str:
    return job.clip.clip_id if isinstance(job, RawClipJob) else job.sample.key


def _split(job: Job) -> str | None:
    return job.clip.split if isinstance(job, RawClipJob) else job.shard.split
