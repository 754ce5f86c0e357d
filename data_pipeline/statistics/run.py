"""Measure every clip of a shard set or a folder of posed videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME
from data_pipeline.parallel import default_processes, progress_bar, workers
from data_pipeline.statistics.clips import measure_raw_clip, measure_shard_clip
from data_pipeline.statistics.summary import Summary
from data_pipeline.validate.findings import Observation
from data_pipeline.validate.shards import ListedSet, ShardClipJob, list_samples, list_set


def summarise(source: Path, reading: ReadSettings, processes: int | None, *, progress: bool) -> Summary:
    """Return the figures of all clips; raises ValueError where `source` cannot be read at all."""
    summary = Summary(str(source))
    with workers(processes or default_processes()) as run:
        if (source / FILE_NAME).is_file():
            listed = list_set(source)
            if isinstance(listed, Observation):
                raise ValueError(f"{source / FILE_NAME}: not a manifest ({listed.found}); see cami2v data validate")
            total = sum(shard.entry.samples for shard in listed.shards)
            results = run(measure_shard_clip, _jobs(listed))
        else:
            clips = open_source(source, reading).clips
            total, results = len(clips), run(measure_raw_clip, clips)
        for clip in progress_bar(results, what="measure", unit="clip", total=total, show=progress):
            summary.add(clip)
    return summary


def _jobs(listed: ListedSet) -> Iterator[ShardClipJob]:
    for shard in listed.shards:
        for sample in list_samples(shard)[0]:
            yield ShardClipJob(shard=shard, sample=sample, by_time=listed.by_time, compare=False)
