"""Validate a shard set or a folder of posed videos: every clip in parallel, then what only all clips together show."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME
from data_pipeline.parallel import Runner, default_processes, progress_bar, workers
from data_pipeline.validate.across import AcrossClips
from data_pipeline.validate.clip import ClipOptions
from data_pipeline.validate.findings import Finding, Observation, Place, finding
from data_pipeline.validate.raw import RawClipJob, judge_raw_clip
from data_pipeline.validate.report import Report
from data_pipeline.validate.shards import (
    ListedSet,
    ShardClipJob,
    check_shard,
    judge_shard_clip,
    list_samples,
    list_set,
)

_MANIFEST = Place(shard=FILE_NAME)


def validate(source: Path, options: ClipOptions, reading: ReadSettings, *, progress: bool) -> Report:
    """Return all findings; one broken part does not hide the others.

    `reading` says how a folder without manifest.json is read. Raises ValueError where `source` is neither.
    """
    options.validate()
    with workers(options.processes or default_processes()) as run:
        if not (source / FILE_NAME).is_file():
            return _validate_raw(source, options, reading, run, progress)
        listed = list_set(source)
        if isinstance(listed, Observation):
            return Report(source=str(source), kind="shard set", findings=[finding(listed, _MANIFEST)])
        return _validate_set(source, listed, options, run, progress)


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


def _validate_set(folder: Path, listed: ListedSet, options: ClipOptions, run: Runner, progress: bool) -> Report:
    report, across = Report(source=str(folder), kind="shard set"), AcrossClips()
    hashed = run(check_shard, listed.shards)
    bar = progress_bar(hashed, what="hash", unit="shard", total=len(listed.shards), show=progress)
    for shard, seen in zip(listed.shards, bar, strict=True):
        report.findings += [finding(each, shard.place) for each in seen]
    total = sum(shard.entry.samples for shard in listed.shards)
    results = run(functools.partial(judge_shard_clip, options=options), _jobs(listed, options, report.findings))
    for result in progress_bar(results, what="validate", unit="clip", total=total, show=progress):
        report.add(result)
        report.findings += across.check(result)
    report.findings += across.check_lists(listed.sources, _MANIFEST)
    return report


def _jobs(listed: ListedSet, options: ClipOptions, findings: list[Finding]) -> Iterator[ShardClipJob]:
    """Read one index at a time, so that memory does not grow with the set; what is wrong with it goes to `findings`."""
    number = 0
    for shard in listed.shards:
        samples, seen = list_samples(shard)
        findings += [finding(each, shard.place) for each in seen]
        for sample in samples:
            yield ShardClipJob(shard=shard, sample=sample, by_time=listed.by_time, compare=_compare(number, options))
            number += 1


def _compare(number: int, options: ClipOptions) -> bool:
    return options.epipolar_every > 0 and number % options.epipolar_every == 0
