"""The endless order of samples, and how splits and shards are dealt."""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest

from data_pipeline.order import Order, micro_batches, sample_seed
from data_pipeline.sampling import SampleRandom, first_frames
from data_pipeline.splits import plan_shards, split_sources

SHARDS = (5, 3, 7, 1, 4)


def order(window: int = 2, seed: int = 3) -> Order:
    return Order(samples_per_shard=SHARDS, shuffle_window_shards=window, seed=seed)


def test_every_epoch_visits_every_clip_once_in_another_order() -> None:
    everything = {(shard, position) for shard, count in enumerate(SHARDS) for position in range(count)}
    epochs = [[order().clip(number) for number in range(20 * epoch, 20 * epoch + 20)] for epoch in range(3)]
    for epoch in epochs:
        assert set(epoch) == everything
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] == [order().clip(number) for number in range(20)]
    assert epochs[0] != [order(seed=4).clip(number) for number in range(20)]


def test_a_window_bounds_the_shards_open_at_once() -> None:
    one = [order(window=1).clip(number)[0] for number in range(20)]
    assert sum(left != right for left, right in pairwise(one)) == len(SHARDS) - 1
    mixed = [order(window=5).clip(number)[0] for number in range(20)]
    assert sum(left != right for left, right in pairwise(mixed)) > 8


PINNED_ORDER = [(1, 1), (2, 5), (2, 3), (2, 0), (1, 0), (1, 2)]
PINNED_SEEDS = [1150187422431486483, 6429919509248852041]


def test_the_order_is_pinned() -> None:
    """Resumed runs depend on these numbers: they may change only with a note in the changelog."""
    assert [order().clip(number) for number in range(6)] == PINNED_ORDER
    assert [sample_seed(3, number) for number in range(2)] == PINNED_SEEDS


@pytest.mark.parametrize(("world_size", "micro"), [(1, 8), (2, 4), (4, 2), (8, 1), (2, 2)])
def test_ranks_together_take_every_number_once(world_size: int, micro: int) -> None:
    steps = 40 // (world_size * micro)
    taken = [
        list(islice(micro_batches(start=24, micro_batch_size=micro, rank=rank, world_size=world_size), steps))
        for rank in range(world_size)
    ]
    for step in range(steps):
        numbers = list(chain.from_iterable(batches[step] for batches in taken))
        first = 24 + step * world_size * micro
        assert numbers == list(range(first, first + world_size * micro))


def test_sample_seeds_are_63_bit_and_distinct() -> None:
    seeds = {sample_seed(seed, number) for seed in range(10) for number in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_sample_random_covers_both_ends_evenly() -> None:
    draw = SampleRandom(12)
    counts = Counter(draw(1, 10) for _ in range(5000))
    assert set(counts) == set(range(1, 11))
    assert min(counts.values()) > 400
    assert [SampleRandom(12)(0, 99) for _ in range(3)] == [SampleRandom(12)(0, 99)] * 3


def test_first_frames_take_the_middle_of_a_range() -> None:
    assert first_frames(available=100, frames=4, stride=(1, 10), where="").indices.tolist() == [0, 5, 10, 15]
    assert first_frames(available=10, frames=4, stride=3, where="").indices.tolist() == [0, 3, 6, 9]
    assert first_frames(available=9, frames=4, stride=3, where="").stride == 2


def test_hashed_splits_are_stable_and_fair() -> None:
    ids = [f"video{number}" for number in range(400)]
    fractions = {"train": 0.8, "validation": 0.05, "test": 0.15}
    half, whole = split_sources(ids[:200], fractions), split_sources(ids, fractions)
    assert all(whole[each] == split for each, split in half.items())
    counts = Counter(whole.values())
    assert counts["train"] == pytest.approx(320, abs=30)
    assert counts["test"] == pytest.approx(60, abs=25)


def test_few_sources_still_fill_every_split() -> None:
    for number in range(30):
        assigned = split_sources([f"{number}/{each}" for each in "abcdef"], {"train": 0.9, "test": 0.1})
        assert set(assigned.values()) == {"train", "test"}
    assert split_sources(["one"], {"train": 0.9, "test": 0.1}) == {"one": "train"}
    assert set(split_sources(["a", "b", "c"], {"train": 0.0, "test": 1.0}).values()) == {"test"}


def test_shards_are_even_and_mixed() -> None:
    rows = [(f"clip{number:03d}", f"source{number // 10}") for number in range(100)]
    plan = plan_shards({"train": rows}, samples_per_shard=30, min_shards=3, seed=0)["train"]
    assert [len(shard) for shard in plan] == [25, 25, 25, 25]
    assert sorted(chain.from_iterable(plan)) == [clip for clip, _ in rows]
    source_of = dict(rows)
    assert min(len({source_of[clip] for clip in shard}) for shard in plan) > 5
    assert plan != plan_shards({"train": rows}, samples_per_shard=30, min_shards=3, seed=1)["train"]
    with pytest.raises(ValueError, match="share 1 source videos"):
        plan_shards({"train": rows, "test": [("x", "source3")]}, samples_per_shard=9, min_shards=1, seed=0)
    assert np.mean([len(shard) for shard in plan]) == 25
