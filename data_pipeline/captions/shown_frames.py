"""The frames of a clip that a captioner is shown: evenly spread, small, with square pixels.

Imports no torch: many processes are started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.realestate10k.inspect import match_timestamps, pixel_aspect

ALREADY = "has a caption"
"""Said of clips that are left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChoice:
    """Which frames are shown, and how large."""

    frames: int
    """Evenly spread over the clip; fewer where it has fewer."""
    long_side: int
    """Larger frames are scaled down to it."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        if self.frames < 1 or self.long_side < 28:
            raise ValueError(f"show.frames={self.frames}, show.long_side={self.long_side}: at least 1 and 28")

    def numbers(self, available: int) -> list[int]:
        """Return the middles of equal parts of a clip."""
        count = min(self.frames, available)
        return [(2 * part + 1) * available // (2 * count) for part in range(count)]

    def size(self, height: int, width: int, aspect: float) -> tuple[int, int]:
        """Return the height and width shown: pixels, which are `aspect` times as wide as high, become square."""
        true_width = width * aspect
        scale = min(1.0, self.long_side / max(height, true_width))
        return max(round(height * scale), 1), max(round(true_width * scale), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownClip:
    """Frames of a clip to describe."""

    clip_id: str
    frame_numbers: tuple[int, ...]
    """Of the clip, from 0."""
    frames: UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotShown:
    """A clip that is not described, and why."""

    clip_id: str
    reason: str
    message: str


def show(clip: PosedClip, choice: FrameChoice) -> ShownClip | NotShown:
    """Read the frames of one clip; whatever is wrong with it is in the result."""
    try:
        track = clip.track()
        if track.caption and track.caption.strip():
            return NotShown(clip_id=clip.clip_id, reason=ALREADY, message="")
        source = clip.frame_source(track)
        info = source.info()
        numbers: Sequence[int] = range(info.frames)
        if clip.matched_by_time:
            numbers = match_timestamps(track, info, clip.where, str(source))[0].tolist()
        chosen = choice.numbers(len(numbers))
        aspect = pixel_aspect(track.intrinsics_normalized, info.height, info.width, clip.where)
        height, width = choice.size(info.height, info.width, aspect)
        frames = [_resized(frame, height, width) for frame in source.frames([numbers[index] for index in chosen])]
    except BadClip as error:
        return NotShown(clip_id=clip.clip_id, reason=error.reason, message=str(error))
    except ValueError as error:
        return NotShown(clip_id=clip.clip_id, reason=Reason.VIDEO_UNREADABLE, message=str(error))
    return ShownClip(clip_id=clip.clip_id, frame_numbers=tuple(chosen), frames=np.stack(frames))


def _resized(frame: UInt8[np.ndarray, "_rows _columns 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
