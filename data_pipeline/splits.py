"""Which clip is in which split, and in which shard."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.frozen_split import read_frozen_split
from data_pipeline.manifest import check_disjoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which clip goes to which split."""

    split_of: dict[str, str]
    unlisted: dict[str, str]
    """Clips that a frozen list leaves no place for, and why."""
    absent: dict[str, tuple[str, ...]]
    """Listed ids that no clip has, by split."""


def read_split_lists(paths: Mapping[str, str | None]) -> dict[str, tuple[str, ...]]:
    """Read files of source or clip ids, one a line; blank lines and lines that begin with # do not count.

    A file that ends in .json is a frozen split, and lists its clips. Raises ValueError for a file that is missing or
    lists nothing.
    """
    lists = {}
    for split, path in paths.items():
        if path is None:
            continue
        if path.endswith(".json"):
            lists[split] = read_frozen_split(path, f"pack.split_lists.{split}").clips
            continue
        try:
            lines = [line.strip() for line in Path(path).expanduser().read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"pack.split_lists.{split}={path}: not a readable text file ({error})") from error
        lists[split] = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
        if not lists[split]:
            raise ValueError(f"pack.split_lists.{split}={path}: lists nothing; expected a source or clip id per line")
    return lists


def assign_splits(
    clips: Mapping[str, tuple[str, str | None]], fractions: Mapping[str, float], lists: Mapping[str, Sequence[str]]
) -> Assignment:
    """Give every clip a split; `clips` holds (source id, split of its folder or None) by clip id.

    A list says exactly what is in its split. All other clips go to the split of their folder, or are dealt out by
    source over the splits without a list. Raises ValueError where lists contradict each other, share a source or name
    no clip that is there.
    """
    split_of, absent = _listed(clips, lists)
    taken: dict[str, set[str]] = defaultdict(set)
    for clip_id, split in split_of.items():
        taken[split].add(clips[clip_id][0])
    check_disjoint(taken, "pack.split_lists")
    split_of_source = {source: split for split, sources in taken.items() for source in sources}
    open_fractions = {name: fraction for name, fraction in fractions.items() if name not in lists}
    total = sum(open_fractions.values())
    dealt: dict[str, str] = {}
    if any(split is None for _, split in clips.values()):
        free = [source for source, split in clips.values() if split is None and source not in split_of_source]
        split_sources([], fractions)  # judges the fractions as they were given
        if total > 0:
            dealt = split_sources(free, {name: fraction / total for name, fraction in open_fractions.items()})
    unlisted = {}
    for clip_id, (source, own) in clips.items():
        if clip_id in split_of:
            continue
        place = dealt.get(source) if own is None else own
        if source in split_of_source:
            unlisted[clip_id] = f"its source video {source} is in {split_of_source[source]} by other clips of the list"
        elif place is None or place in lists:
            unlisted[clip_id] = f"no list names it and {place or 'every split'} has one"
        else:
            split_of[clip_id] = place
    return Assignment(split_of=split_of, unlisted=unlisted, absent=absent)


def _listed(
    clips: Mapping[str, tuple[str, str | None]], lists: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    of_source: dict[str, list[str]] = defaultdict(list)
    for clip_id, (source, _) in clips.items():
        of_source[source].append(clip_id)
    split_of: dict[str, str] = {}
    absent = {}
    for split, ids in lists.items():
        named = {each: [*of_source.get(each, ()), *([each] if each in clips else [])] for each in ids}
        missing = tuple(each for each, found in named.items() if not found)
        if len(missing) == len(ids):
            raise ValueError(
                f"pack.split_lists.{split}: none of its {len(ids)} ids is a source or clip that can be packed "
                f"(first: {missing[0]})"
            )
        if missing:
            absent[split] = missing
        for each, found in named.items():
            for clip_id in found:
                if split_of.setdefault(clip_id, split) != split:
                    raise ValueError(
                        f"pack.split_lists.{split}: {each} puts clip {clip_id} there, which is listed for "
                        f"{split_of[clip_id]} as well; splits share nothing"
                    )
    return split_of, absent


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
