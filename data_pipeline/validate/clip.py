"""Judge one clip, wherever it was read from.

Imports no torch: validation starts many processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from cami2v.video import Frame, VideoInfo
from data_pipeline.validate import cameras
from data_pipeline.validate.epipolar import SampsonErrors, check_epipolar, pairs_to_compare, sampson_errors
from data_pipeline.validate.findings import Check, Finding, Observation, Place, finding

_FAR_MICROSECONDS = 8000  # as in the report of `cami2v pack`
_RATE_WITHIN = 0.02
_ASPECT_WITHIN = 0.02
_SQUARE_WITHIN = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """How closely clips are looked at."""

    min_frames: int
    """Shorter clips are reported."""
    decode: bool
    """Decode every frame; otherwise only those that are compared."""
    epipolar_every: int
    """Compare frames with cameras in every n-th clip; 0: in none."""
    processes: int | None
    """None: one for each core this process may use."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key, low in (("min_frames", 1), ("epipolar_every", 0), ("processes", 1)):
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"validate.{key}={value}: must be at least {low}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCameras:
    """Cameras of a clip as they are stored, of the right shapes but with any values."""

    world_to_camera: cameras.Poses
    intrinsics_normalized: cameras.Intrinsics
    timestamps_microseconds: Int64[np.ndarray, " frames"]
    metric_scale: Float[np.ndarray, " values"] | None


class ReadClip(ABC):
    """A clip whose description was read; its frames are still encoded."""

    place: Place
    source_id: str
    captions: tuple[str, ...]
    cameras: StoredCameras
    offsets_microseconds: Int64[np.ndarray, " frames"]
    """Time of the decoded frame minus the annotated time."""
    video: VideoInfo
    frames_per_second: float
    """Of the clip's frames."""
    cut: bool
    """Whether it was cut before it came here: its frame rate is then whatever the file says."""
    content: str
    """Equal for equal frames."""
    stored_pixel_aspect: float | None
    """None where it is not stored but follows from the cameras."""

    @abstractmethod
    def stored_claims(self) -> Iterator[Observation]:
        """Compare count, size and rate stored beside the video with the video; nothing where nothing is stored."""

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode frames of the clip; raises ValueError where one does not decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult:
    """What became of a clip: small, because it travels between processes."""

    place: Place
    source_id: str | None
    """None where the clip could not be read."""
    content: str | None
    findings: tuple[Finding, ...]
    compared: bool
    """Whether enough of its frames matched to judge the cameras by them."""


def judge(clip: ReadClip, options: ClipOptions, compare: bool) -> ClipResult:
    """Run every check of a single clip."""
    observations = [
        *_check_extent(clip, options.min_frames),
        *_check_cameras(clip),
        *clip.stored_claims(),
        *_check_times(clip),
    ]
    seen = {each.check for each in observations}
    errors = None
    if Check.FRAME_COUNT_MISMATCH not in seen:
        try:
            errors = _look(clip, options.decode, compare and not seen & _UNUSABLE)
        except ValueError as error:
            observations.append(Observation(Check.VIDEO_UNREADABLE, str(error)))
    observations += check_epipolar(errors) if errors else []
    observations += [] if seen & _UNUSABLE else _check_shape(clip, errors)
    return ClipResult(
        place=clip.place,
        source_id=clip.source_id,
        content=clip.content,
        findings=tuple(finding(each, clip.place) for each in observations),
        compared=errors is not None,
    )


def _look(clip: ReadClip, decode: bool, compare: bool) -> SampsonErrors | None:
    """Decode the clip, keep the frames to compare, and compare them; raises ValueError where one does not decode."""
    stored = clip.cameras
    count = len(stored.world_to_camera)
    wanted = {number for pair in pairs_to_compare(count) for number in pair} if compare else set()
    numbers = list(range(count)) if decode else sorted(wanted)
    kept = {}
    if numbers:
        for number, frame in zip(numbers, clip.frames(numbers), strict=True):
            if number in wanted:
                kept[number] = frame
    return sampson_errors(kept, stored.world_to_camera, stored.intrinsics_normalized) if kept else None


_UNUSABLE = {
    Check.POSE_NOT_FINITE,
    Check.ROTATION_NOT_RIGID,
    Check.INTRINSICS_NOT_NORMALIZED,
    Check.INTRINSICS_IMPLAUSIBLE,
    Check.FRAME_COUNT_MISMATCH,
}
"""With these, cameras and frames cannot be compared."""


def unreadable(place: Place, observation: Observation) -> ClipResult:
    """Return the result of a clip that cannot be read at all."""
    return ClipResult(
        place=place, source_id=None, content=None, findings=(finding(observation, place),), compared=False
    )


def _check_extent(clip: ReadClip, min_frames: int) -> Iterator[Observation]:
    count = len(clip.cameras.world_to_camera)
    if count < min_frames:
        yield Observation(Check.TOO_SHORT, f"{count} frames, validate.min_frames is {min_frames}")
    if not any(caption.strip() for caption in clip.captions):
        yield Observation(Check.CAPTION_MISSING, f"{len(clip.captions)} captions, none with text")


def _check_cameras(clip: ReadClip) -> Iterator[Observation]:
    stored = clip.cameras
    broken = list(cameras.check_poses(stored.world_to_camera))
    yield from broken
    if not broken:
        yield from cameras.check_motion(stored.world_to_camera)
    yield from cameras.check_intrinsics(stored.intrinsics_normalized, clip.video.height, clip.video.width)
    if stored.metric_scale is not None:
        yield from cameras.check_metric_scale(stored.metric_scale, len(stored.world_to_camera))


def _check_times(clip: ReadClip) -> Iterator[Observation]:
    times = clip.cameras.timestamps_microseconds
    unordered = list(cameras.check_timestamps(times))
    yield from unordered
    far = np.abs(clip.offsets_microseconds)
    if far.size and far.max() > _FAR_MICROSECONDS:
        yield Observation(Check.TIMESTAMPS_FAR, f"{far.max() / 1000:.1f} ms off", int(far.argmax()))
    if unordered or len(times) < 2:
        return
    annotated = 1e6 / float(np.median(np.diff(times)))
    if abs(clip.frames_per_second / annotated - 1) > _RATE_WITHIN:
        check = Check.FRAME_RATE_OF_CUT_CLIP if clip.cut else Check.FRAME_RATE_MISMATCH
        yield Observation(check, f"{clip.frames_per_second:.4g} frames/s, timestamps say {annotated:.4g}")


def check_rate(video: VideoInfo, frames_per_second: float) -> Iterator[Observation]:
    """Compare the rate of a video with the one noted beside it."""
    if not frames_per_second > 0 or abs(video.frames_per_second / frames_per_second - 1) > _RATE_WITHIN:
        found = f"the video plays {video.frames_per_second:.4g} frames/s, its json says {frames_per_second:.4g}"
        yield Observation(Check.FRAME_RATE_MISMATCH, found)


def _check_shape(clip: ReadClip, errors: SampsonErrors | None) -> Iterator[Observation]:
    """Say that pixels are not square, whether matches agree, and whether the stored aspect does."""
    height, width = clip.video.height, clip.video.width
    aspect = cameras.pixel_aspect(clip.cameras.intrinsics_normalized, height, width)
    stored = clip.stored_pixel_aspect
    if stored is not None and not abs(stored / aspect - 1) < _ASPECT_WITHIN:
        yield Observation(Check.PIXEL_ASPECT_WRONG, f"{stored:.4g} stored, the cameras say {aspect:.4g}")
    if abs(aspect - 1) < _SQUARE_WITHIN:
        return
    found = f"pixels {aspect:.3f} times as wide as high: {width}x{height} of a {round(width * aspect)}x{height} picture"
    if errors is not None:
        found += f"; matches are {errors.given:.2g} pixels off their epipolar lines"
        found += f", {errors.square:.2g} with square pixels"
    yield Observation(Check.PIXELS_SQUASHED, found)
