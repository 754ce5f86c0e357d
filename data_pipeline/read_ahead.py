"""Fetch the shards that come next while the clips before them are read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue

from data_pipeline.manifest import ShardEntry
from data_pipeline.shard_store import CachedShards, ShardStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """The shards that samples from a number on are read from, in the order of need."""

    until: int
    """The sample number that has other ones."""
    now: tuple[ShardEntry, ...]
    """Those before `until`."""
    later: tuple[ShardEntry, ...]
    """Some of those from `until` on."""

    def within(self, limit_bytes: int | None) -> list[ShardEntry]:
        """Return what fits into a cache: all that is read now, of the others as many as there is room beside it."""
        entries = list(dict.fromkeys(self.now))
        room = float("inf") if limit_bytes is None else limit_bytes - sum(entry.bytes for entry in entries)
        for entry in dict.fromkeys(self.later):
            if entry in entries:
                continue
            room -= entry.bytes
            if room < 0:
                break
            entries.append(entry)
        return entries


class ReadAhead:
    """A thread, in each process that reads, that fetches what its samples will need; nothing where shards are local.

    It starts with the first sample that a process reads, never before a fork, and ends with `close` or with its
    process. What cannot be fetched is left alone: whoever needs it meets the error then.
    """

    def __init__(self, store: ShardStore, upcoming: Callable[[int], Upcoming]) -> None:
        self._store = store if isinstance(store, CachedShards) else None
        self._upcoming = upcoming
        self._until = 0
        self._owner: int | None = None
        self._plans: SimpleQueue[list[ShardEntry] | None]
        self._stopped: threading.Event
        self._thread: threading.Thread

    def expect(self, number: int) -> None:
        """Note that sample `number` is about to be read; numbers do not go back within a process."""
        if self._store is None or (self._owner == os.getpid() and number < self._until):
            return
        upcoming = self._upcoming(number)
        self._until = upcoming.until
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._plans, self._stopped = SimpleQueue(), threading.Event()
            self._thread = threading.Thread(target=self._fetch, args=(self._store,), name="read ahead", daemon=True)
            self._thread.start()
        self._plans.put(upcoming.within(self._store.limit_bytes)[1:])  # the first one is fetched by its reader

    def close(self) -> None:
        """End the thread; this waits for its request, which a silent server may delay by its timeout."""
        if self._owner == os.getpid():
            self._owner = None
            self._stopped.set()
            self._plans.put(None)
            self._thread.join()

    def _fetch(self, store: CachedShards) -> None:
        while (entries := self._plans.get()) is not None:
            for entry in entries:
                if self._stopped.is_set() or not self._plans.empty():
                    break
                with suppress(ValueError, OSError):
                    store.fetch_ahead(entry, self._stopped.is_set)
