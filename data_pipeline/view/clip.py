"""Everything the page shows of one clip, gathered in the process that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cami2v.geometry.scene import Scene, distances, scene_of
from cami2v.video import Frame, encode_mp4
from data_pipeline.bad_clips import BadClip
from data_pipeline.validate.cameras import motion, pixel_aspect
from data_pipeline.validate.clip import ClipOptions, ClipResult, ReadClip, judge, unreadable
from data_pipeline.validate.epipolar import pairs_to_compare
from data_pipeline.validate.findings import Check, Finding, Observation, Place, finding
from data_pipeline.validate.matches import find_features, match_pair, working_size
from data_pipeline.validate.raw import RawClip, RawClipJob
from data_pipeline.validate.shards import open_shard_clip
from data_pipeline.view.selection import Job

_GOP = 4
_SHOWN_MATCHES = 10
_BROKEN_CAMERAS = {
    Check.POSE_NOT_FINITE,
    Check.ROTATION_NOT_RIGID,
    Check.INTRINSICS_NOT_NORMALIZED,
    Check.INTRINSICS_IMPLAUSIBLE,
    Check.FRAME_COUNT_MISMATCH,
}
"""With these there is nothing to draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """How clips are shown."""

    short_side: int
    """Of the videos in the page; larger ones are scaled down."""
    crf: int
    max_frames: int
    """Longer clips are shown with every n-th frame."""
    compare: bool
    """Whether frames are matched: shown on the page, and judged as by `cami2v data validate`."""
    min_frames: int
    processes: int | None
    """None: one for each core this process may use."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key, low in (("short_side", 32), ("max_frames", 2), ("min_frames", 1), ("processes", 1), ("crf", 0)):
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"view.{key}={value}: must be at least {low}")
        if self.crf > 51:
            raise ValueError(f"view.crf={self.crf}: must be from 0 (best) to 51")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Points that two shown frames have in common, found without cameras; (u, v) from 0 to 1."""

    frames: tuple[int, int]
    points: list[list[float]]
    partners: list[list[float]]
    found: int
    median_pixels: float | None
    """Distance of all partners to their lines, in pixels of the frame with square pixels; None without lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownVideo:
    """The playable clip and what is drawn over it."""

    mp4: bytes
    frame_numbers: tuple[int, ...]
    frames_per_second: float
    display_aspect: float
    """Width over height of the picture with square pixels."""
    scene: Scene | None
    """None where the cameras are broken."""
    matches: Matches | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipView:
    """One clip of the page."""

    clip_id: str
    captions: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    video: ShownVideo | None
    """None where no frame can be shown."""


def view_clip(job: Job, options: ViewOptions) -> ClipView:
    """Read, judge and encode one clip; whatever is wrong with it is among its findings."""
    clip = _open(job)
    if isinstance(clip, ClipResult):
        place = clip.place
        facts = (("split", place.split or "not split"), ("place", place.shard))
        return ClipView(clip_id=str(place.clip), captions=(), facts=facts, findings=clip.findings, video=None)
    judging = ClipOptions(
        min_frames=options.min_frames, decode=False, epipolar_every=int(options.compare), processes=None
    )
    findings = judge(clip, judging, options.compare).findings
    drawable = not {each.check for each in findings} & _BROKEN_CAMERAS
    video = None
    try:
        video = _shown(clip, options, drawable)
    except ValueError as error:
        findings = (*findings, finding(Observation(Check.VIDEO_UNREADABLE, str(error)), clip.place))
    return ClipView(
        clip_id=str(clip.place.clip),
        captions=clip.captions,
        facts=tuple(_facts(clip, video, drawable)),
        findings=findings,
        video=video,
    )


def _open(job: Job) -> ReadClip | ClipResult:
    if not isinstance(job, RawClipJob):
        return open_shard_clip(job)
    place = Place(shard=Path(job.clip.where).name, clip=job.clip.clip_id, split=job.clip.split)
    try:
        return RawClip(place, job.clip)
    except BadClip as error:
        return unreadable(place, Observation(Check(error.reason.value), str(error)))


def _shown(clip: ReadClip, options: ViewOptions, drawable: bool) -> ShownVideo:
    count = clip.video.frames if not drawable else len(clip.cameras.world_to_camera)
    step = -(-count // options.max_frames)
    numbers = list(range(0, count, step))
    frames = [_scaled(frame, options.short_side) for frame in clip.frames(numbers)]
    height, width = clip.video.height, clip.video.width
    aspect = pixel_aspect(clip.cameras.intrinsics_normalized, height, width) if drawable else 1.0
    fps = clip.frames_per_second / step
    shown = ShownVideo(
        mp4=encode_mp4(frames, fps=fps, crf=options.crf, gop=_GOP),
        frame_numbers=tuple(numbers),
        frames_per_second=fps,
        display_aspect=width * aspect / height,
        scene=None,
        matches=None,
    )
    if not drawable:
        return shown
    scene = scene_of(clip.cameras.world_to_camera[numbers], clip.cameras.intrinsics_normalized[numbers])
    matches = _matches(scene, frames, height, width * aspect) if options.compare else None
    return replace(shown, scene=scene, matches=matches)


def _scaled(frame: Frame, short_side: int) -> Frame:
    height, width = frame.shape[:2]
    scale = min(1.0, short_side / min(height, width))
    size = tuple(2 * max(round(side * scale / 2), 1) for side in (height, width))
    if size == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _matches(scene: Scene, frames: Sequence[Frame], height: int, width: float) -> Matches | None:
    """Match the first pair that validation compares; `height` and `width` are those with square pixels."""
    pairs = pairs_to_compare(len(frames))
    if not pairs:
        return None
    first, second = pairs[0]
    found = match_pair(find_features(frames[first]), find_features(frames[second]))
    rows, columns = working_size(*frames[first].shape[:2])
    points, partners = (each / np.array([columns, rows], dtype=np.float64) for each in found)
    lines = scene.lines(first, second, points)
    shown = _spread(points, _SHOWN_MATCHES)
    away = float(np.median(distances(lines, partners, height, width))) if len(points) and lines.any() else None
    return Matches(
        frames=(first, second),
        points=points[shown].round(5).tolist(),
        partners=partners[shown].round(5).tolist(),
        found=len(points),
        median_pixels=away,
    )


def _spread(points: np.ndarray, count: int) -> list[int]:
    """Choose points far from each other, greedily."""
    if not len(points):
        return []
    chosen = [int(np.linalg.norm(points - 0.5, axis=1).argmin())]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return chosen


def _facts(clip: ReadClip, video: ShownVideo | None, drawable: bool) -> list[tuple[str, str]]:
    stored, height, width = clip.cameras, clip.video.height, clip.video.width
    times = stored.timestamps_microseconds
    facts = [
        ("split", clip.place.split or "not split"),
        ("source", clip.source_id),
        ("place", clip.place.shard),
        ("frame size", f"{width} x {height}"),
        ("frames", f"{len(stored.world_to_camera)}" + _every(video)),
        ("frame rate", f"{clip.frames_per_second:.4g} per second"),
        ("annotated", f"{(times[-1] - times[0]) / 1e6:.3f} s"),
    ]
    if np.abs(clip.offsets_microseconds).max(initial=0) > 0:
        facts.append(("frames off their times", f"at most {np.abs(clip.offsets_microseconds).max() / 1000:.1f} ms"))
    if not drawable:
        return facts
    intrinsics = stored.intrinsics_normalized
    aspect = pixel_aspect(intrinsics, height, width)
    steps, turns = motion(stored.world_to_camera)
    field_of_view = np.degrees(2 * np.arctan(0.5 / intrinsics[0, 0]))
    facts += [
        ("pixels", "square" if abs(aspect - 1) < 0.01 else f"{aspect:.3f} times as wide as high, shown square"),
        ("fx fy cx cy", " ".join(f"{value:.4f}" for value in intrinsics[0]) + _zoom(intrinsics)),
        ("field of view", f"{field_of_view:.1f} degrees across"),
        ("path", f"{steps.sum():.4g} units"),
        ("turned", f"{turns.sum():.1f} degrees"),
        ("scale", _scale(stored.metric_scale, float(steps.sum()))),
    ]
    return facts


def _every(video: ShownVideo | None) -> str:
    if video is None or len(video.frame_numbers) < 2 or video.frame_numbers[1] == 1:
        return ""
    return f", every {_ordinal(video.frame_numbers[1])} shown"


def _ordinal(number: int) -> str:
    return f"{number}{ {2: 'nd', 3: 'rd'}.get(number, 'th') }"


def _zoom(intrinsics: np.ndarray) -> str:
    low, high = intrinsics[:, 0].min(), intrinsics[:, 0].max()
    return f" (fx {low:.4f} to {high:.4f})" if high > 1.001 * low else ""


def _scale(scale: Any, path: float) -> str:
    if scale is None or not np.isfinite(scale).all():
        return "not known"
    metres = float(np.median(scale))
    return f"{metres:.4g} metres per unit, path {metres * path:.3g} metres"
