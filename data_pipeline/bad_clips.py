"""Clips that cannot be packed: why, and what is done about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cami2v.geometry.pose_files.base import Fault, PoseFileError


class Reason(StrEnum):
    """Why a clip cannot be packed."""

    VIDEO_MISSING = "video_missing"
    VIDEO_UNREADABLE = "video_unreadable"
    CAPTION_MISSING = "caption_missing"
    POSE_FILE_MALFORMED = "pose_file_malformed"
    POSE_NOT_FINITE = "pose_not_finite"
    ROTATION_NOT_RIGID = "rotation_not_rigid"
    INTRINSICS_IMPLAUSIBLE = "intrinsics_implausible"
    TIMESTAMPS_NOT_INCREASING = "timestamps_not_increasing"
    FRAME_COUNT_MISMATCH = "frame_count_mismatch"
    FRAME_NOT_FOUND = "frame_not_found"
    METRIC_SCALE_MALFORMED = "metric_scale_malformed"
    METRIC_SCALE_STALE = "metric_scale_stale"
    METRIC_SCALE_MISSING = "metric_scale_missing"
    SOURCE_UNKNOWN = "source_unknown"
    TOO_SHORT = "too_short"


class BadClip(ValueError):
    """A clip that cannot be packed; the message is one line that names the file."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadClip], tuple[Reason, str]]:
        return BadClip, (self.reason, str(self))


_REASONS = {
    Fault.MALFORMED: Reason.POSE_FILE_MALFORMED,
    Fault.NOT_FINITE: Reason.POSE_NOT_FINITE,
    Fault.NOT_RIGID: Reason.ROTATION_NOT_RIGID,
}


@contextmanager
def pose_file_faults() -> Iterator[None]:
    """Turn what is wrong with a pose file into a BadClip of the same message."""
    try:
        yield
    except PoseFileError as error:
        raise BadClip(_REASONS[error.fault], str(error)) from error


@dataclass(slots=True, kw_only=True)
class DropReport:
    """Counts what was left out of a shard set, by reason, and what was packed with a reservation."""

    clips_found: int
    dropped: dict[Reason, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    far_timestamps_microseconds: dict[str, int] = field(default_factory=dict)
    """Clips with a frame more than 8 ms away from its annotation, and the largest distance."""
    unlisted: dict[str, str] = field(default_factory=dict)
    """Good clips that a frozen split list leaves no place for, and why."""
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids of a frozen split list that no packed clip has, by split."""

    def drop(self, clip_id: str, error: BadClip) -> None:
        """Count one clip out."""
        self.dropped[error.reason][clip_id] = str(error)

    def has_dropped(self, clip_id: str) -> bool:
        """Tell whether a clip was counted out."""
        return any(clip_id in clips for clips in self.dropped.values())

    @property
    def total(self) -> int:
        """Number of bad clips."""
        return sum(len(clips) for clips in self.dropped.values())

    @property
    def packed(self) -> int:
        """Number of clips in the set."""
        return self.clips_found - self.total - len(self.unlisted)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, reasons and clips in a fixed order."""
        return {
            "clips_found": self.clips_found,
            "clips_packed": self.packed,
            "clips_dropped": self.total,
            "dropped_by_reason": {
                str(reason): {"clips": len(clips), "messages": dict(sorted(clips.items()))}
                for reason, clips in sorted(self.dropped.items())
            },
            "left_out_by_split_lists": dict(sorted(self.unlisted.items())),
            "listed_but_absent": {split: sorted(ids) for split, ids in sorted(self.absent.items())},
            "timestamps_off_by_more_than_8_ms": dict(sorted(self.far_timestamps_microseconds.items())),
        }

    def lines(self) -> list[str]:
        """Say the report in a few lines for a person."""
        left_out = self.clips_found - self.packed
        lines = [f"{self.clips_found} clips found, {self.packed} packed, {left_out} left out"]
        for reason, clips in sorted(self.dropped.items()):
            lines.append(f"  {reason}: {len(clips)} ({_first(clips)})")
        if self.unlisted:
            lines.append(f"  not in the list of their split: {len(self.unlisted)} ({_first(self.unlisted)})")
        for split, ids in sorted(self.absent.items()):
            lines.append(f"{len(ids)} ids listed for {split} are not in the set ({_first(ids)})")
        if self.far_timestamps_microseconds:
            worst = max(self.far_timestamps_microseconds.values()) / 1000
            lines.append(
                f"{len(self.far_timestamps_microseconds)} clips have a frame more than 8 ms "
                f"from its annotated time (at most {worst:.1f} ms)"
            )
        return lines


def _first(ids: Iterable[str]) -> str:
    ordered = sorted(ids)
    return ", ".join(ordered[:5]) + (", ..." if len(ordered) > 5 else "")
