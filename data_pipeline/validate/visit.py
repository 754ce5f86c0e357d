"""Go through a shard set clip by clip, wherever its shards are; remote ones come and go: few are on the disk."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data_pipeline.parallel import Runner
from data_pipeline.shard_store import CachedShards, Fault, FaultyShard, ShardStore, open_store
from data_pipeline.validate.findings import Check, Observation
from data_pipeline.validate.shards import ListedSet, ListedShard, ShardClipJob, check_shard

SHARDS_AHEAD = 2
"""Remote shards that are fetched, or being fetched, before their clips are in work."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteReading:
    """How a set behind an address is read."""

    cache_folder: str
    """The loader's; shards that are there are read from there."""
    timeout_seconds: float
    keep_shards: bool
    """Leave in the cache what had to be fetched."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        if self.timeout_seconds <= 0:
            raise ValueError(f"remote.timeout_seconds={self.timeout_seconds}: must be above 0")

    def open(self, source: str) -> ShardStore:
        """Return a store over a folder (of any kind) or the address of a shard set."""
        return open_store(
            source,
            cache_folder=self.cache_folder,
            cache_gigabytes=None,
            timeout_seconds=self.timeout_seconds,
            key="source",
        )


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A shard that is here, if it can be."""

    seen: tuple[Observation, ...]
    fetched: bool


@dataclass(slots=True)
class _Begun:
    """A shard with clips in work."""

    shard: ListedShard
    clips: int
    goes: bool


def over_clips(
    listed: ListedSet,
    run: Runner,
    job: Callable[[ShardClipJob], Result],
    clips_of: Callable[[ListedShard], Sequence[ShardClipJob]],
    *,
    seen: Callable[[ListedShard, Sequence[Observation]], None],
    check: bool,
    keep_shards: bool,
) -> Iterator[Result]:
    """Yield the results of `job` over the clips of all shards, in order.

    `clips_of` is asked once a shard is on this machine, after `seen` was told what is wrong with its file (`check`:
    its checksum, too). Raises ValueError where an address does not answer.
    """
    begun: deque[_Begun] = deque()
    ahead = SHARDS_AHEAD if isinstance(listed.store, CachedShards) else None

    def jobs() -> Iterator[ShardClipJob]:
        arrivals = run(functools.partial(_arrive, check=check), listed.shards, ahead=ahead)
        for shard, arrival in zip(listed.shards, arrivals, strict=True):
            seen(shard, arrival.seen)
            entry = _Begun(shard, 0, arrival.fetched and not keep_shards)
            begun.append(entry)
            clips = clips_of(shard)
            entry.clips = len(clips)
            yield from clips

    def leave(*, finished: bool) -> None:
        while begun and (not finished or (begun[0].clips == 0 and len(begun) > 1)):
            entry = begun.popleft()
            if entry.goes:
                entry.shard.store.forget(entry.shard.entry)

    try:
        for result in run(job, jobs()):
            leave(finished=True)
            begun[0].clips -= 1
            yield result
    finally:
        leave(finished=False)


def _arrive(shard: ListedShard, *, check: bool) -> _Arrival:
    there = shard.path.is_file()
    try:
        shard.store.path(shard.entry)
    except FaultyShard as error:
        what = {
            Fault.MISSING: Check.SHARD_MISSING,
            Fault.DIFFERENT: Check.SHARD_HASH_MISMATCH,
            Fault.INDEX: Check.INDEX_MISMATCH,
        }
        return _Arrival((Observation(what[error.fault], str(error)),), fetched=False)
    if there or not isinstance(shard.store, CachedShards):
        return _Arrival(tuple(check_shard(shard)) if check else (), fetched=False)
    return _Arrival((), fetched=True)  # checked when it came
