"""Checks that need all clips: copies, and source videos in several splits. Holds a few hundred bytes per clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from data_pipeline.validate.clip import ClipResult
from data_pipeline.validate.findings import Check, Finding, Observation, Place, finding


class AcrossClips:
    """Remembers the clips seen so far."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._contents: dict[str, Place] = {}
        self._sources: dict[str, Place] = {}
        self._leaking: set[str] = set()

    def check(self, clip: ClipResult) -> Iterator[Finding]:
        """Compare a clip with all before it."""
        place = clip.place
        first = self._places.setdefault(place.clip or "", place)
        if first is not place:
            yield finding(_copy(place, first, "the same id as"), place)
        elif clip.content is not None:
            first = self._contents.setdefault(clip.content, place)
            if first is not place:
                yield finding(_copy(place, first, "the same frames as"), place)
        if clip.source_id is None or place.split is None:
            return
        first = self._sources.setdefault(clip.source_id, place)
        if first.split != place.split and clip.source_id not in self._leaking:
            self._leaking.add(clip.source_id)
            found = f"source {clip.source_id} is in {place.split}, and in {first.split} ({first})"
            yield finding(Observation(Check.SOURCE_LEAK, found), place)

    def check_lists(self, sources: Mapping[str, Sequence[str]], place: Place) -> Iterator[Finding]:
        """Compare the sources that splits list; those already found are not repeated."""
        for (left, first), (right, second) in combinations(sorted(sources.items()), 2):
            for source in sorted(set(first) & set(second) - self._leaking):
                yield finding(Observation(Check.SOURCE_LEAK, f"source {source} is listed in {left} and {right}"), place)


def _copy(place: Place, first: Place, how: str) -> Observation:
    check = Check.DUPLICATE_CLIP if first.split == place.split else Check.DUPLICATE_ACROSS_SPLITS
    where = "" if first.split is None else f" in {first.split}"
    return Observation(check, f"{how} {first}{where}")
