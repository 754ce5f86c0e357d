"""Measure every clip of a shard set or a folder of posed videos."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME
from data_pipeline.parallel import default_processes, progress_bar, workers
from data_pipeline.shard_store import LocalShards, ShardStore
from data_pipeline.statistics.clips import measure_raw_clip, measure_shard_clip
from data_pipeline.statistics.summary import Summary
from data_pipeline.validate.findings import Observation
from data_pipeline.validate.shards import list_set, samples_of
from data_pipeline.validate.visit import over_clips


def summarise(
    source: Path | ShardStore, reading: ReadSettings, processes: int | None, *, keep_shards: bool, progress: bool
) -> Summary:
    """Return the figures of all clips; `keep_shards` as for `validate`.

    Raises ValueError where `source` cannot be read at all, or an address does not answer.
    """
    store = LocalShards(source, str(source)) if isinstance(source, Path) else source
    summary = Summary(store.name)
    with workers(processes or default_processes()) as run:
        if (store.folder / FILE_NAME).is_file():
            listed = list_set(store)
            if isinstance(listed, Observation):
                raise ValueError(f"{store.name}/{FILE_NAME}: not a manifest ({listed.found}); see cami2v data validate")
            total = sum(shard.entry.samples for shard in listed.shards)
            results = over_clips(
                listed,
                run,
                measure_shard_clip,
                lambda shard: list(samples_of(listed, shard)),
                seen=lambda shard, observations: None,
                check=False,
                keep_shards=keep_shards,
            )
        else:
            clips = open_source(store.folder, reading).clips
            total, results = len(clips), run(measure_raw_clip, clips)
        for clip in progress_bar(results, what="measure", unit="clip", total=total, show=progress):
            summary.add(clip)
    return summary
