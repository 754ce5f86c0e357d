"""Validate a shard set or a folder of posed videos: every clip in parallel, then what only all clips together show."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME
from data_pipeline.parallel import Runner, default_processes, progress_bar, workers
from data_pipeline.shard_store import LocalShards, ShardStore
from data_pipeline.validate.across import AcrossClips
from data_pipeline.validate.clip import ClipOptions
from data_pipeline.validate.findings import Observation, Place, finding
from data_pipeline.validate.raw import RawClipJob, judge_raw_clip
from data_pipeline.validate.report import Report
from data_pipeline.validate.shards import ListedSet, ListedShard, ShardClipJob, judge_shard_clip, list_samples, list_set
from data_pipeline.validate.visit import over_clips

_MANIFEST = Place(shard=FILE_NAME)


def validate(
    source: Path | ShardStore, options: ClipOptions, reading: ReadSettings, *, keep_shards: bool, progress: bool
) -> Report:
    """Return all findings; one broken part does not hide the others.

    `reading` says how a folder without manifest.json is read, `keep_shards` whether remote shards that had to be
    fetched stay in the cache. Raises ValueError where `source` is neither, or an address does not answer.
    """
    options.validate()
    store = LocalShards(source, str(source)) if isinstance(source, Path) else source
    with workers(options.processes or default_processes()) as run:
        if not (store.folder / FILE_NAME).is_file():
            return _validate_raw(store.folder, options, reading, run, progress)
        listed = list_set(store)
        if isinstance(listed, Observation):
            return Report(source=store.name, kind="shard set", findings=[finding(listed, _MANIFEST)])
        return _validate_set(listed, options, run, keep_shards, progress)


def _validate_raw(source: Path, options: ClipOptions, reading: ReadSettings, run: Runner, progress: bool) -> Report:
    folder = open_source(source, reading)
    report, across = Report(source=str(source), kind=f"folder ({folder.layout})"), AcrossClips()
    # Clips of one source one after another: each process then opens its video once.
    clips = sorted(folder.clips, key=lambda clip: (clip.address, clip.clip_id))
    jobs = (RawClipJob(clip=clip, compare=_compare(n, options)) for n, clip in enumerate(clips))
    results = run(functools.partial(judge_raw_clip, options=options), jobs)
    for result in progress_bar(results, what="validate", unit="clip", total=len(clips), show=progress):
        report.add(result)
        report.findings += across.check(result)
    return report


def _validate_set(listed: ListedSet, options: ClipOptions, run: Runner, keep_shards: bool, progress: bool) -> Report:
    report, across = Report(source=listed.store.name, kind="shard set"), AcrossClips()
    numbers = count()

    def seen(shard: ListedShard, observations: Sequence[Observation]) -> None:
        report.findings.extend(finding(each, shard.place) for each in observations)

    def clips_of(shard: ListedShard) -> list[ShardClipJob]:
        samples, observations = list_samples(shard)
        seen(shard, observations)
        return [
            ShardClipJob(
                shard=shard,
                sample=sample,
                by_time=listed.by_time,
                metric=listed.metric,
                compare=_compare(next(numbers), options),
            )
            for sample in samples
        ]

    job = functools.partial(judge_shard_clip, options=options)
    results = over_clips(listed, run, job, clips_of, seen=seen, check=True, keep_shards=keep_shards)
    total = sum(shard.entry.samples for shard in listed.shards)
    for result in progress_bar(results, what="validate", unit="clip", total=total, show=progress):
        report.add(result)
        report.findings += across.check(result)
    report.findings += across.check_lists(listed.sources, _MANIFEST)
    return report


def _compare(number: int, options: ClipOptions) -> bool:
    return options.epipolar_every > 0 and number % options.epipolar_every == 0
