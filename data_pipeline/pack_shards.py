"""Encode the clips of planned shards and write each shard as soon as its last clip is there."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from data_pipeline.bad_clips import BadClip
from data_pipeline.file_locks import FileLock
from data_pipeline.inspection import Group, Inspection, PlannedClip, clip_sha256
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.parallel import Runner, progress_bar
from data_pipeline.partial_set import FinishedShard, PartialSet
from data_pipeline.realestate10k.encode import PackedFormat, encode_clip
from data_pipeline.shard_writer import Sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """A shard to be, and its clips in order."""

    name: str
    split: str
    clip_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipJob:
    """A clip to encode."""

    planned: PlannedClip
    files: PosedClip
    group: Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Encodes clips as they were inspected; small, because it travels with every job."""

    inspection: Inspection
    frame_format: PackedFormat

    def __call__(self, job: ClipJob) -> dict[str, bytes] | BadClip:
        """Return a sample's members; raises ValueError where the clip is not what was planned any more."""
        try:
            clip = self.inspection.clip(job.files, job.group)
            if clip_sha256(clip) != job.planned.sha256:
                raise ValueError(f"{job.files.where}: the clip changed while the set was packed; pack again")
            return encode_clip(clip, self.frame_format, self.inspection.tool)
        except BadClip as error:
            return error


def pack_shards(
    partial: PartialSet,
    shards: Sequence[PlannedShard],
    jobs: Mapping[str, ClipJob],
    encoder: Encoder,
    run: Runner,
    *,
    on_bad_clip: Callable[[BadClip], None],
    progress: bool,
) -> None:
    """Write the shards that are not finished. One that another process is writing is waited for, at the end.

    `on_bad_clip` may raise; otherwise the clip is left out of its shard.
    """
    todo = [shard for shard in shards if partial.finished(shard.name) is None]
    total = sum(len(shard.clip_ids) for shard in todo)
    with progress_bar(None, what="encode", unit="clip", total=total, show=progress) as bar:
        busy: list[PlannedShard] = []
        for shard, results in _encoded(partial, todo, busy, jobs, encoder, run, wait=False):
            _write(partial, shard, results, jobs, on_bad_clip)
            bar.update(len(results))
        if busy:
            logger.warning("%s: waiting for another run that is writing %d of the shards", partial.folder, len(busy))
            for shard, results in _encoded(partial, busy, [], jobs, encoder, run, wait=True):
                _write(partial, shard, results, jobs, on_bad_clip)
                bar.update(len(results))


def damaged(partial: PartialSet, names: Sequence[str], run: Runner) -> list[str]:
    """Check finished shards by their checksums; forget those that are damaged, and return their names."""
    finished = {name: found for name in names if (found := partial.finished(name)) is not None}
    intact = run(functools.partial(FinishedShard.intact_in, folder=partial.shards), list(finished.values()))
    wrong = [name for name, good in zip(finished, intact, strict=True) if not good]
    for name in wrong:
        logger.warning("%s: differs from its recorded checksum, it will be packed again", partial.shards / name)
        partial.forget(name)
    return wrong


def _encoded(
    partial: PartialSet,
    shards: Sequence[PlannedShard],
    busy: list[PlannedShard],
    jobs: Mapping[str, ClipJob],
    encoder: Encoder,
    run: Runner,
    *,
    wait: bool,
) -> Iterator[tuple[PlannedShard, list[dict[str, bytes] | BadClip]]]:
    """Yield shards with their encoded clips, locked while the caller has them; those that others hold go to `busy`.

    Clips of the next shard are encoded while the last ones of a shard are, so that no process waits.
    """
    begun: deque[tuple[PlannedShard, FileLock]] = deque()

    def clips() -> Iterator[ClipJob]:
        for shard in shards:
            lock = partial.lock_shard(shard.name, wait=wait)
            if lock is None:
                busy.append(shard)
            elif partial.finished(shard.name) is not None:
                lock.release()
            else:
                begun.append((shard, lock))
                yield from (jobs[clip_id] for clip_id in shard.clip_ids)

    results: list[dict[str, bytes] | BadClip] = []
    try:
        for result in run(encoder, clips()):
            results.append(result)
            shard, lock = begun[0]
            if len(results) == len(shard.clip_ids):
                yield shard, results
                begun.popleft()
                lock.release()
                results = []
    finally:
        for _, lock in begun:
            lock.release()


def _write(
    partial: PartialSet,
    shard: PlannedShard,
    results: Sequence[dict[str, bytes] | BadClip],
    jobs: Mapping[str, ClipJob],
    on_bad_clip: Callable[[BadClip], None],
) -> None:
    samples: list[Sample] = []
    sources: list[str] = []
    bad: list[tuple[str, BadClip]] = []
    for clip_id, result in zip(shard.clip_ids, results, strict=True):
        if isinstance(result, BadClip):
            on_bad_clip(result)
            bad.append((clip_id, result))
            continue
        planned = jobs[clip_id].planned
        samples.append((clip_id, planned.frames, result))
        sources.append(planned.source_id)
    partial.write(shard.name, samples, sources, bad)
