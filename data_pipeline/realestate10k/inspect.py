"""Judge a raw clip before it is packed: which frame belongs to which camera, and what shape its pixels have.

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from cami2v.video import VideoInfo
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.clips.record import CutRecord, read_record, record_path
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.layouts.frames import FrameSource, VideoFile
from data_pipeline.metric_scale.side_file import FILE_NAME, MAKE_IT, EstimatedScale
from data_pipeline.realestate10k.parse import parse_metric_scale
from data_pipeline.realestate10k.track import PoseTrack, track_sha256

_SQUARE_WITHIN = 0.01  # published focal lengths carry rounding of up to half a percent


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedClip:
    """A clip that can be packed."""

    files: PosedClip
    source_id: str
    captions: tuple[str, ...]
    frame_source: FrameSource
    video_sha256: str
    poses_sha256: str
    native_height: int
    native_width: int
    native_frames_per_second: float
    frames_per_second: float
    """Of the packed frames."""
    rotation_degrees: int
    pixel_aspect: float
    """Width over height of a native pixel."""
    frame_indices: Int64[np.ndarray, " frames"]
    offsets_microseconds: Int64[np.ndarray, " frames"]
    """Time of the decoded frame minus the annotated time; zeros for cut clips without a record of it."""


def inspect_clip(files: PosedClip, *, min_frames: int, default_caption: str | None) -> InspectedClip:
    """Check one clip against its video; raises BadClip."""
    track = files.track()
    frames = len(track.timestamps_microseconds)
    if files.metric_scale is not None:
        parse_metric_scale(files.metric_scale, frames, files.clip_id)
        _check_estimate(files, track)
    source = files.frame_source(track)
    info, video_sha256 = _probed(source)
    cut: CutRecord | None = None
    if files.matched_by_time:
        indices, offsets = match_timestamps(track, info, files.where, str(source))
        frames_per_second = _rate_of(info, indices)
    else:
        indices = _one_to_one(track, info, files.where, str(source))
        offsets = np.zeros(frames, np.int64)
        frames_per_second = info.frames_per_second
        cut = _cut_record(source, frames)
    rate, rotation = info.frames_per_second, info.rotation_degrees
    if cut is not None:
        offsets = np.asarray(cut.timestamp_offsets_microseconds, np.int64)
        rate, rotation = cut.source["frames_per_second"], cut.source["rotation_applied_degrees"]
    # After the checks above: a pose file that lost lines is wrong, not just short.
    if frames < min_frames:
        raise BadClip(Reason.TOO_SHORT, f"{files.where}: {frames} frames, fewer than pack.min_frames={min_frames}")
    return InspectedClip(
        files=files,
        source_id=track.source_id,
        captions=_captions(files, track, default_caption),
        frame_source=source,
        video_sha256=video_sha256,
        poses_sha256=files.poses_sha256(track),
        native_height=info.height,
        native_width=info.width,
        native_frames_per_second=rate,
        frames_per_second=frames_per_second,
        rotation_degrees=rotation,
        pixel_aspect=pixel_aspect(track.intrinsics_normalized, info.height, info.width, files.where),
        frame_indices=indices,
        offsets_microseconds=offsets,
    )


def _check_estimate(files: PosedClip, track: PoseTrack) -> None:
    """Raise BadClip where the clip's metric scale was estimated with other cameras, whose unit may be another."""
    scale = files.metric_scale
    if isinstance(scale, EstimatedScale) and scale.cameras_sha256 != track_sha256(track):
        raise BadClip(
            Reason.METRIC_SCALE_STALE,
            f"{files.where}: the metric scale of clip {files.clip_id} in {FILE_NAME} was estimated with other cameras; "
            f"estimate it again: {MAKE_IT}",
        )


def match_timestamps(
    track: PoseTrack, info: VideoInfo, poses: str, video: str
) -> tuple[Int64[np.ndarray, " frames"], Int64[np.ndarray, " frames"]]:
    """Return for every camera line the frame nearest in time, and how far off (decoded minus annotated, microseconds).

    Raises BadClip where two lines fall on one frame or a line is more than a frame's duration from any.
    """
    decoded = np.rint(info.timestamps_seconds * 1e6).astype(np.int64)
    annotated = track.timestamps_microseconds
    right = np.searchsorted(decoded, annotated).clip(max=len(decoded) - 1)
    left = np.maximum(right - 1, 0)
    indices = np.where(annotated - decoded[left] <= decoded[right] - annotated, left, right).astype(np.int64)
    offsets = decoded[indices] - annotated
    far = np.flatnonzero(np.abs(offsets) > 1e6 / info.frames_per_second)
    if far.size:
        raise BadClip(
            Reason.FRAME_NOT_FOUND,
            f"{poses}: camera {far[0]} is at {annotated[far[0]] / 1e6:.3f} s, but the nearest frame of "
            f"{video} (0 to {decoded[-1] / 1e6:.3f} s) is "
            f"{abs(offsets[far[0]]) / 1e3:.0f} ms away; is it another upload?",
        )
    shared = np.flatnonzero(np.diff(indices) <= 0)
    if shared.size:
        raise BadClip(
            Reason.FRAME_COUNT_MISMATCH,
            f"{poses}: cameras {shared[0]} and {shared[0] + 1} fall on the same frame of {video} "
            f"({info.frames_per_second:.4g} frames/s); the video has fewer frames than it was annotated with",
        )
    return indices, offsets


def pixel_aspect(intrinsics: Float64[np.ndarray, "frames 4"], height: int, width: int, poses: str) -> float:
    """Return width over height of a pixel: what makes both focal lengths equal in pixels; 1 where that is within 1 %.

    Raises BadClip where it changes along the clip or lies outside 1/2 to 2.
    """
    ratios = intrinsics[:, 1] * height / (intrinsics[:, 0] * width)
    aspect = float(np.median(ratios))
    if np.abs(ratios / aspect - 1).max() > _SQUARE_WITHIN or not 0.5 <= aspect <= 2:
        raise BadClip(
            Reason.INTRINSICS_IMPLAUSIBLE,
            f"{poses}: fx, fy and the {width}x{height} video give pixels {ratios.min():.3g} to {ratios.max():.3g} "
            "times as wide as high; expected one value between 0.5 and 2 (is the video rotated or of another shape?)",
        )
    return 1.0 if abs(aspect - 1) < _SQUARE_WITHIN else aspect


def _one_to_one(track: PoseTrack, info: VideoInfo, poses: str, video: str) -> Int64[np.ndarray, " frames"]:
    frames = len(track.timestamps_microseconds)
    if info.frames != frames:
        raise BadClip(
            Reason.FRAME_COUNT_MISMATCH,
            f"{video}: {info.frames} frames, but {poses} has {frames} cameras; a cut clip needs one for each",
        )
    return np.arange(frames, dtype=np.int64)


def _cut_record(source: FrameSource, frames: int) -> CutRecord | None:
    """Return what `cami2v data clips` wrote beside a clip; None for other clips. Raises BadClip for a stale one."""
    if not isinstance(source, VideoFile):
        return None
    try:
        record = read_record(source.path)
    except ValueError as error:
        raise BadClip(Reason.VIDEO_UNREADABLE, str(error)) from error
    if record is None:
        return None
    if len(record.timestamp_offsets_microseconds) != frames or record.clip["bytes"] != source.path.stat().st_size:
        raise BadClip(
            Reason.FRAME_COUNT_MISMATCH,
            f"{record_path(source.path)}: is of another clip than the video beside it; "
            "remove it, or run cami2v data clips again",
        )
    return record


def _rate_of(info: VideoInfo, indices: Int64[np.ndarray, " frames"]) -> float:
    if len(indices) < 2:
        return info.frames_per_second
    return info.frames_per_second / float(np.median(np.diff(indices)))


def _captions(files: PosedClip, track: PoseTrack, default: str | None) -> tuple[str, ...]:
    captions = files.captions or tuple(text for text in (track.caption, default) if text is not None)[:1]
    if not captions:
        raise BadClip(
            Reason.CAPTION_MISSING,
            f"clip {files.clip_id}: no caption in captions.json or {files.where}; "
            "add one or set pack.default_caption=<text>",
        )
    return captions


@functools.lru_cache(maxsize=8)  # the clips of one source come one after another
def _probed(source: FrameSource) -> tuple[VideoInfo, str]:
    try:
        return source.info(), source.sha256()
    except ValueError as error:
        raise BadClip(Reason.VIDEO_UNREADABLE, str(error)) from error
