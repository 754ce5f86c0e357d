"""The order of samples: a pure function of the seed, so that any process can take any part of it.

Sample number n (n = 0, 1, ... without end) is the n-th clip trained on, over all processes. Epoch n // N visits every
clip once. No position is stored beyond n itself: resuming costs nothing, and the number of processes does not matter.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which clip each sample number is."""

    samples_per_shard: tuple[int, ...]
    shuffle_window_shards: int
    """Clips are shuffled within windows of this many shuffled shards; larger mixes better, smaller reads fewer."""
    seed: int

    def clip(self, number: int) -> tuple[int, int]:
        """Return (shard, position within the shard) of sample number `number`."""
        epoch, position = divmod(number, sum(self.samples_per_shard))
        shard, within = _epoch_order(self.samples_per_shard, self.shuffle_window_shards, self.seed, epoch)[position]
        return int(shard), int(within)

    def windows_from(self, number: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the shuffle window of sample `number`, then the windows after it, without end.

        A window is the first sample number behind it and, in the order of need, the shards of its samples (in the
        first window those from `number` on).
        """
        total = sum(self.samples_per_shard)
        epoch, position = divmod(number, total)
        while True:
            shards = _epoch_order(self.samples_per_shard, self.shuffle_window_shards, self.seed, epoch)[:, 0]
            for end in self._window_ends(epoch):
                if position < end:
                    needed = dict.fromkeys(shards[position:end].tolist())
                    yield epoch * total + end, tuple(needed)
                    position = end
            epoch, position = epoch + 1, 0

    def _window_ends(self, epoch: int) -> list[int]:
        shuffled = _shuffled_shards(_draws(self.seed, epoch), len(self.samples_per_shard))
        ends = np.cumsum(np.array(self.samples_per_shard)[shuffled])
        return [*ends[self.shuffle_window_shards - 1 :: self.shuffle_window_shards].tolist(), int(ends[-1])]

    def substitute(self, number: int, attempt: int) -> tuple[int, int]:
        """Return (shard, position) of the clip that stands in where sample `number` cannot be used.

        Drawn evenly from the whole split; `attempt` 1, 2, ... where substitutes cannot be used either.
        """
        total = sum(self.samples_per_shard)
        drawn = hashlib.blake2b(f"{self.seed}/{number}/substitute/{attempt}".encode(), digest_size=8).digest()
        position = int.from_bytes(drawn, "little") * total >> 64
        ends = np.cumsum(self.samples_per_shard)
        shard = int(np.searchsorted(ends, position, side="right"))
        return shard, position - int(ends[shard] - self.samples_per_shard[shard])


def sample_seed(seed: int, number: int) -> int:
    """Return the 63-bit seed of all random draws of one sample."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest(), "little") >> 1


def micro_batches(*, start: int, micro_batch_size: int, rank: int, world_size: int) -> Iterator[list[int]]:
    """Yield the sample numbers of this process's micro-batches without end.

    A global step takes `world_size * micro_batch_size` consecutive numbers from `start` on, rank after rank.
    """
    first = start + rank * micro_batch_size
    while True:
        yield list(range(first, first + micro_batch_size))
        first += world_size * micro_batch_size


@functools.lru_cache(maxsize=2)  # a batch may lie across two epochs
def _epoch_order(
    samples_per_shard: Sequence[int], window: int, seed: int, epoch: int
) -> Int64[np.ndarray, "samples 2"]:
    draws = _draws(seed, epoch)
    shards = _shuffled_shards(draws, len(samples_per_shard))
    parts = []
    for begin in range(0, len(shards), window):
        clips = [
            np.stack([np.full(samples_per_shard[shard], shard), np.arange(samples_per_shard[shard])], axis=1)
            for shard in shards[begin : begin + window]
        ]
        merged = np.concatenate(clips).astype(np.int64)
        parts.append(merged[np.argsort(draws.random_raw(len(merged)), kind="stable")])
    return np.concatenate(parts)


def _draws(seed: int, epoch: int) -> np.random.Philox:
    # Raw Philox output is fixed by its definition; numpy's shuffles may change between versions.
    return np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))


def _shuffled_shards(draws: np.random.Philox, shards: int) -> Int64[np.ndarray, " shards"]:
    """Return the order of an epoch's shards: its first draws."""
    return np.argsort(draws.random_raw(shards), kind="stable")
