"""Which clip is in which split, and in which shard."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from data_pipeline.manifest import check_disjoint


def split_sources(source_ids: Sequence[str], fractions: Mapping[str, float]) -> dict[str, str]:
    """Deal source videos out to splits by a hash of their id, so that a growing set keeps its old members' splits.

    Every split with a fraction above 0 gets a source as long as there are enough. Raises ValueError for fractions that
    are negative or do not sum to 1.
    """
    if any(fraction < 0 for fraction in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"pack.splits={dict(fractions)}: fractions must not be negative and must sum to 1")
    bounds, total = [], 0.0
    for name, fraction in fractions.items():
        if fraction > 0:
            total += fraction
            bounds.append((total, name))
    ordered = sorted(set(source_ids), key=_position)
    assigned = {each: next((name for end, name in bounds if _position(each) < end), bounds[-1][1]) for each in ordered}
    for _, name in sorted(bounds, key=lambda bound: fractions[bound[1]]):
        counts = {other: sum(1 for value in assigned.values() if value == other) for _, other in bounds}
        largest = max(counts, key=lambda other: counts[other])
        if counts[name] == 0 and counts[largest] > 1:
            assigned[next(each for each in reversed(ordered) if assigned[each] == largest)] = name
    return assigned


def plan_shards(
    clips: Mapping[str, Sequence[tuple[str, str]]], *, samples_per_shard: int, min_shards: int, seed: int
) -> dict[str, list[list[str]]]:
    """Return clip ids per shard for every split; `clips` holds (clip id, source id) per split.

    Clips are mixed by a hash, and spread evenly over enough shards for `samples_per_shard` and `min_shards` (no more
    than there are clips). Raises ValueError where splits share a source.
    """
    check_disjoint({split: {source for _, source in rows} for split, rows in clips.items()}, "the clips to pack")
    plan = {}
    for split, rows in sorted(clips.items()):
        ids = sorted((clip_id for clip_id, _ in rows), key=lambda clip_id: _hash(f"{seed}/{clip_id}"))
        shards = max(-(-len(ids) // samples_per_shard), min(min_shards, len(ids)))
        plan[split] = [ids[len(ids) * i // shards : len(ids) * (i + 1) // shards] for i in range(shards)]
    return plan


def _position(source_id: str) -> float:
    return int.from_bytes(_hash(source_id)[:6], "big") / 2**48


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
