"""A training stream that is cut off again and again, and one whose number of processes changes, show the same clips."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.loader import ClipLoader
from data_pipeline.order import Order
from tests.data_pipeline.damage import copy_set, flip_bit
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.data_pipeline.test_loader import loader, rows, take

CLIPS = 12
MICRO = 1
INTERRUPTIONS = 50


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    raw = clips_folder(folder / "raw", clips=CLIPS, frames=12, splits=["train"] * CLIPS)
    return pack_quietly(raw, folder / "set", min_shards=4).folder


class Stream:
    """All processes' batches of one life of a run, step by step."""

    def __init__(self, source: ClipLoader, *, world_size: int, start: int) -> None:
        request = {"micro_batch_size": MICRO, "world_size": world_size, "seed": 11, "start": start}
        self.ranks = [source.stream(rank=rank, **request) for rank in range(world_size)]
        self.samples_per_step = MICRO * world_size

    def step(self) -> list[Any]:
        return [row for rank in self.ranks for row in rows([next(rank)])]

    def kill(self, uneven: bool) -> None:
        """End the workers; where a job dies, some processes have often taken one batch more than the others."""
        if uneven:
            next(self.ranks[0])
        self.ranks.clear()


def interrupted(source: ClipLoader, steps: int, seed: int) -> tuple[list[Any], int]:
    """Run to `steps` with random kills; after each, continue from the last of the checkpoints (every third step)."""
    draw = random.Random(seed)
    served: list[Any] = []
    kills = 0
    while len(served) < steps:
        del served[len(served) // 3 * 3 :]
        stream = Stream(source, world_size=2, start=len(served) * 2 * MICRO)
        lives_for = draw.randint(0, 5) if kills < INTERRUPTIONS else steps
        for _ in range(min(lives_for, steps - len(served))):
            served.append(stream.step())
        kills += kills < INTERRUPTIONS and len(served) < steps
        stream.kill(uneven=draw.random() < 0.5)
    return served, kills


@pytest.mark.slow
def test_fifty_interruptions_change_nothing(shards: Path, tmp_path: Path) -> None:
    """Ten epochs and more, with two clips that have to be replaced in each."""
    folder = copy_set(shards, tmp_path / "set")
    for clip in ("clip3", "clip7"):
        flip_bit(folder, clip)
    steps = 120
    expected = rows(take(loader(folder), steps * 2, micro_batch_size=MICRO, seed=11))
    served, kills = interrupted(loader(folder, num_workers=2), steps, seed=3)
    assert kills == INTERRUPTIONS
    assert [row for step in served for row in step] == expected


@pytest.mark.parametrize("num_workers", [0, 1])
def test_from_two_to_four_to_one_process_an_epoch_stays_an_epoch(shards: Path, num_workers: int) -> None:
    source = loader(shards, num_workers=num_workers)
    served: list[Any] = []
    for world_size, steps in ((2, 2), (4, 1), (1, 4)):
        stream = Stream(source, world_size=world_size, start=len(served))
        for _ in range(steps):
            served += stream.step()
        stream.kill(uneven=True)
    assert len(served) == CLIPS
    assert {clip for clip, *_ in served} == {f"clip{number}" for number in range(CLIPS)}
    assert served == rows(take(loader(shards), CLIPS // MICRO, micro_batch_size=MICRO, seed=11))


SHARD_SAMPLES = (256,) * 64
WINDOW = 16


def epoch_order(epoch: int, window: int = WINDOW) -> np.ndarray:
    """Return shard and position of every sample of an epoch."""
    order = Order(samples_per_shard=SHARD_SAMPLES, shuffle_window_shards=window, seed=7)
    total = sum(SHARD_SAMPLES)
    return np.array([order.clip(number) for number in range(epoch * total, (epoch + 1) * total)])


@pytest.mark.parametrize("window", [1, 4, 16, 64])
def test_neighbours_come_from_one_shard_as_rarely_as_the_window_allows(window: int) -> None:
    shard = epoch_order(0, window)[:, 0]
    together = np.mean([left == right for left, right in pairwise(shard)])
    # One in `window`, with the spread of a mean of 16,383 coin throws; at window 1 all but the 63 changes of shard.
    assert together == pytest.approx(1 / window, abs=4 * np.sqrt(1 / window / 16383) if window > 1 else 0.01)
    # A batch of 64 sees as many shards as 64 draws from a window do on average.
    seen = np.mean([len(set(part)) for part in shard.reshape(-1, 64)])
    assert seen == pytest.approx(window * (1 - (1 - 1 / window) ** 64), rel=0.05)


def test_the_order_keeps_no_trace_of_the_files_or_of_the_last_epoch() -> None:
    total = sum(SHARD_SAMPLES)
    places = []
    for epoch in range(3):
        shard, position = epoch_order(epoch).T
        flat = shard * 256 + position
        assert len(set(flat)) == total
        within = np.corrcoef(np.arange(total), position)[0, 1]
        assert abs(within) < 4 / np.sqrt(total)
        # Whole shards move, so 64 of them decide about the large scale: a correlation of 64 draws at most.
        assert abs(np.corrcoef(np.arange(total), flat)[0, 1]) < 4 / np.sqrt(64)
        places.append(np.argsort(flat))
    for left, right in pairwise(places):
        assert abs(np.corrcoef(left, right)[0, 1]) < 4 / np.sqrt(64)
        # Of the 2016 pairs of a batch of 64, 7.9 meet again in the next epoch if all clips are shuffled at once.
        next_batches = [right[part] // 64 for part in np.argsort(left).reshape(-1, 64)]
        pairs = [sum(n * (n - 1) / 2 for n in Counter(part.tolist()).values()) for part in next_batches]
        assert np.mean(pairs) == pytest.approx(9.0, rel=0.17)  # windows: a little more often


def test_substitutes_are_drawn_evenly_from_the_split() -> None:
    order = Order(samples_per_shard=(5, 3, 7, 1, 4), shuffle_window_shards=2, seed=3)
    drawn = Counter(order.substitute(number, attempt) for number in range(4000) for attempt in (1, 2))
    assert set(drawn) == {(shard, place) for shard, size in enumerate((5, 3, 7, 1, 4)) for place in range(size)}
    assert all(abs(count - 400) < 5 * 20 for count in drawn.values())
    assert [order.substitute(number, 1) for number in range(4)] == PINNED_SUBSTITUTES


PINNED_SUBSTITUTES = [(0, 4), (3, 0), (1, 1), (3, 0)]
"""Resumed runs depend on these as on the order."""
