"""Shards behind an address are fetched before they are needed, within the cache's size, and nothing stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.loader import ClipLoader
from data_pipeline.manifest import ShardEntry, read_manifest
from data_pipeline.order import Order
from data_pipeline.read_ahead import Upcoming
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.data_pipeline.shard_servers import ShardServer
from tests.data_pipeline.test_loader import assert_equal, loader, rows, take

STREAM: dict[str, int] = {"micro_batch_size": 1, "rank": 0, "world_size": 1, "seed": 5, "start": 0}

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of two clips."""
    folder = tmp_path_factory.mktemp("ahead")
    raw = clips_folder(folder / "raw", clips=12, frames=6, splits=["train"] * 12)
    return pack_quietly(raw, folder / "set", min_shards=6).folder


def remote(server: ShardServer, cache: Path, **changes: Any) -> ClipLoader:
    settings = {"shards": server.url, "cache_folder": str(cache), "timeout_seconds": 5.0, "shuffle_window_shards": 1}
    return loader(cache, **(settings | changes))


def in_order(shards: Path, window: int = 1) -> list[str]:
    """Return the shards of the stream in the order of need."""
    entries = read_manifest(shards).split("train", "").shards
    order = Order(samples_per_shard=tuple(e.samples for e in entries), shuffle_window_shards=window, seed=5)
    return list(dict.fromkeys(entries[order.clip(number)[0]].name for number in range(12)))


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def reading_ahead() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read ahead"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_next_shard_comes_while_the_clips_before_it_are_read(
    shards: Path, server: ShardServer, tmp_path: Path, num_workers: int
) -> None:
    names = in_order(shards)
    stream = remote(server, tmp_path, num_workers=num_workers, shared_shards="allow").stream(**STREAM)
    next(stream)
    # A worker has three clips in work: those of the second shard, so that the third is fetched ahead.
    reached = 2 if num_workers == 0 else 3
    assert eventually(lambda: set(server.counts()) >= set(names[:reached]))
    time.sleep(0.2)
    assert not set(server.counts()) & set(names[reached:]), "one window ahead, not more"
    for batch in islice(stream, 7):
        assert batch.clip_ids
    assert all(server.counts()[name] <= 1 for name in names)
    stream.close()  # type: ignore[attr-defined]
    assert not reading_ahead()


def test_a_stream_does_not_wait_for_one_shard_after_the_other(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    """The first shard is answered only once another one was asked for: who fetches them in turn never gets it."""
    names = in_order(shards, window=6)
    server.first_two = threading.Barrier(2, timeout=20)
    left = take(remote(server, tmp_path, shuffle_window_shards=6), 6)
    assert not server.first_two.broken
    for ours, theirs in zip(left, take(loader(shards, shuffle_window_shards=6), 6), strict=True):
        assert_equal(ours, theirs)
    assert all(server.counts()[name] == 1 for name in names)


def test_a_failed_fetch_matters_when_the_shard_is_needed(
    shards: Path, server: ShardServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = in_order(shards)
    server.faults[names[1]] = ["broken"]
    server.faults[names[2]] = ["missing"] * 2
    stream = remote(server, tmp_path).stream(**STREAM)
    batches = [next(stream)]
    assert eventually(lambda: not server.faults[names[1]])
    assert not caplog.records
    batches += islice(stream, 3)
    assert rows(batches) == rows(take(loader(shards, shuffle_window_shards=1), 4, **STREAM))
    with pytest.raises(ValueError, match=f"{names[2]}: the manifest lists this shard, but it is missing there"):
        next(stream)
    assert not reading_ahead()


def test_a_bounded_cache_is_not_read_past(shards: Path, server: ShardServer, tmp_path: Path) -> None:
    largest = max(entry.bytes for entry in read_manifest(shards).split("train", "").shards)
    stream = remote(server, tmp_path, cache_gigabytes=1.5 * largest / 1e9).stream(**STREAM)
    next(stream)
    time.sleep(0.5)
    assert {name for name in server.counts() if name.endswith(".tar")} == {in_order(shards)[0]}
    stream.close()  # type: ignore[attr-defined]


def test_a_thread_ends_in_the_middle_of_a_shard(
    shards: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.remote.CHUNK_BYTES", 1000)
    second = in_order(shards)[1]
    stream = remote(server, tmp_path).stream(**STREAM)
    next(stream)
    server.delay_seconds = 0.1
    assert eventually(lambda: server.counts()[second] >= 2)
    stream.close()  # type: ignore[attr-defined]
    assert not reading_ahead()
    asked = server.counts()[second]
    time.sleep(0.3)
    assert server.counts()[second] == asked


def test_what_fits() -> None:
    def entry(name: str, size: int) -> ShardEntry:
        return ShardEntry(name=name, samples=1, bytes=size, sha256="", shortest_clip_frames=1)

    a, b, c = entry("a", 10), entry("b", 20), entry("c", 5)
    upcoming = Upcoming(until=7, now=(a, b), later=(b, c, a))
    assert upcoming.within(None) == [a, b, c]
    assert upcoming.within(35) == [a, b, c]
    assert upcoming.within(34) == [a, b]
    assert upcoming.within(1) == [a, b]


def test_windows_follow_the_order() -> None:
    order = Order(samples_per_shard=(3, 1, 4, 2, 5), shuffle_window_shards=2, seed=9)
    windows = list(islice(order.windows_from(4), 6))
    number, seen = 4, 0
    for until, needed in windows:
        clips = [order.clip(each)[0] for each in range(number, until)]
        assert list(needed) == list(dict.fromkeys(clips))
        seen += len(clips)
        number = until
    assert number == 4 + seen
    assert [until % 15 for until, _ in windows if until % 15 == 0] == [0, 0]
