"""Cut all clips of one source video: the nearest frame to each camera, one decoding pass, one file per clip.

Imports no torch: cutting starts many processes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from cami2v.file_hash import file_sha256
from cami2v.video import Frame, Mp4Encoder, VideoInfo, probe, read_forward
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.camera_lists import ListedClip, SourceVideo, video_files
from data_pipeline.clips.record import CutRecord, read_record, record_path, write_record, write_whole
from data_pipeline.file_locks import passing_lock
from data_pipeline.realestate10k.encode import FrameFormat
from data_pipeline.realestate10k.inspect import match_timestamps
from data_pipeline.realestate10k.parse import parse_pose_file
from data_pipeline.realestate10k.track import PoseTrack

VIDEO_TOO_SHORT = "video_too_short"
"""A reason of this step alone: the video ends before the clip does."""
_SQUARE_WITHIN = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult:
    """What became of one clip."""

    clip_id: str
    reason: str | None
    """Why it is not there; None where it is."""
    message: str
    kept: bool
    """It was there before."""
    farthest_microseconds: int
    """Largest distance of a frame from its annotated time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutter:
    """Where videos are, where clips go, and how they are stored."""

    videos: Path
    output: Path
    frame_format: FrameFormat
    wait: bool
    """For a video that another run is cutting."""

    def cut(self, source: SourceVideo) -> list[ClipResult] | None:
        """Cut what is not there yet; one result per clip, in their order.

        None where another run is at work on this video, and `wait` is false. Raises OSError where a disk refuses.
        """
        video = self._video(source)
        results = {clip.clip_id: self._kept(clip, video) for clip in source.clips}
        if None in results.values():
            with passing_lock(self.locks / f"{source.source_id}.lock", wait=self.wait) as mine:
                if not mine:
                    return None
                results = self._cut_missing(source, video)
        return [result for clip in source.clips if (result := results[clip.clip_id]) is not None]

    @property
    def locks(self) -> Path:
        """The folder of the locks on videos that are being cut."""
        return self.output / ".locks"

    def _cut_missing(self, source: SourceVideo, video: Path | None) -> dict[str, ClipResult | None]:
        results = {clip.clip_id: self._kept(clip, video) for clip in source.clips}  # another run may have cut them
        missing = [clip for clip in source.clips if results[clip.clip_id] is None]
        # A clip counts as there while its camera file is: a run that dies here leaves none with old frames.
        for clip in missing:
            self.pose_path(clip).unlink(missing_ok=True)
        return results | {result.clip_id: result for result in self._cut(source, missing, video)}

    def video_path(self, clip: ListedClip) -> Path:
        """Return where the frames of a clip go."""
        return self.output / "video_clips" / (clip.split or "") / f"{clip.clip_id}.mp4"

    def pose_path(self, clip: ListedClip) -> Path:
        """Return where the camera file of a clip goes."""
        return self.output / "pose_files" / (clip.split or "") / f"{clip.clip_id}.txt"

    def _video(self, source: SourceVideo) -> Path | None:
        folders = dict.fromkeys([self.videos, *(self.videos / clip.split for clip in source.clips if clip.split)])
        return next((path for folder in folders for path in video_files(folder, source.source_id)), None)

    def _kept(self, clip: ListedClip, video: Path | None) -> ClipResult | None:
        """Return the result of a clip that is there, made of this video with these cameras and settings."""
        path, poses = self.video_path(clip), self.pose_path(clip)
        if not path.is_file() or not poses.is_file() or not record_path(path).is_file():
            return None
        record = read_record(path)
        same = (
            record is not None
            and record.frame_format == asdict(self.frame_format)
            and record.clip["bytes"] == path.stat().st_size
            and record.poses_sha256 == file_sha256(clip.path) == file_sha256(poses)
            # The source may have been removed since, to make room.
            and (video is None or record.source["bytes"] == video.stat().st_size)
        )
        return _there(record, kept=True) if same and record is not None else None

    def _cut(self, source: SourceVideo, clips: Sequence[ListedClip], video: Path | None) -> list[ClipResult]:
        if video is None:
            message = f"{self.videos}/{source.source_id}: no such video"
            return [_bad(clip, Reason.VIDEO_MISSING, message) for clip in clips]
        try:
            info = probe(video)
        except ValueError as error:
            return [_bad(clip, Reason.VIDEO_UNREADABLE, str(error)) for clip in clips]
        results, plans = [], []
        for clip in clips:
            try:
                plans.append(_plan(clip, info, video, self._size(info)))
            except BadClip as error:
                results.append(_bad(clip, error.reason, str(error)))
            except _TooShort as error:
                results.append(_bad(clip, VIDEO_TOO_SHORT, str(error)))
        if plans:
            results += self._encode(plans, info, video)
        return results

    def _size(self, info: VideoInfo) -> tuple[int, int]:
        """Return height and width with square pixels (only ever made larger for that), then as the format says."""
        aspect = 1.0 if abs(info.pixel_aspect - 1) < _SQUARE_WITHIN else info.pixel_aspect
        height, width = round(info.height * max(1.0, 1 / aspect)), round(info.width * max(1.0, aspect))
        return self.frame_format.packed_size(height, width)

    def _encode(self, plans: list[_Plan], info: VideoInfo, video: Path) -> list[ClipResult]:
        try:
            self._one_pass(plans, info, video)
        except ValueError as error:
            if len(plans) == 1:
                return [_bad(plans[0].clip, Reason.VIDEO_UNREADABLE, str(error))]
            # Damaged somewhere: what lies elsewhere can be cut.
            return [result for plan in plans for result in self._encode([plan.again()], info, video)]
        return [_there(read_record(self.video_path(plan.clip)), kept=False) for plan in plans]

    def _one_pass(self, plans: list[_Plan], info: VideoInfo, video: Path) -> None:
        wanted: dict[int, list[_Plan]] = {}
        for plan in plans:
            for index in plan.indices.tolist():
                wanted.setdefault(index, []).append(plan)
        for index, frame in read_forward(video, wanted):
            scaled = _scaled(frame, plans[0].size)
            for plan in wanted[index]:
                plan.add(scaled, self.frame_format)
                if index == plan.indices[-1]:
                    self._write(plan, info, video)

    def _write(self, plan: _Plan, info: VideoInfo, video: Path) -> None:
        """Write frames, record and, as the last, the cameras."""
        assert plan.encoder is not None, "a plan is written after its last frame was added"
        data, path = plan.encoder.finish(), self.video_path(plan.clip)
        plan.encoder = None
        write_whole(path, data)
        record = CutRecord(
            clip_id=plan.clip.clip_id,
            source_id=plan.track.source_id,
            poses_sha256=file_sha256(plan.clip.path),
            source={
                "file": video.name,
                "bytes": video.stat().st_size,
                "sha256": _sha256_of_source(video),
                "height": info.height,
                "width": info.width,
                "frames_per_second": info.frames_per_second,
                "rotation_applied_degrees": info.rotation_degrees,
                "pixel_aspect": info.pixel_aspect,
            },
            clip={
                "bytes": len(data),
                "height": plan.size[0],
                "width": plan.size[1],
                "frames": len(plan.indices),
                "frames_per_second": plan.frames_per_second,
            },
            frame_format=asdict(self.frame_format),
            frame_indices=tuple(plan.indices.tolist()),
            timestamp_offsets_microseconds=tuple(plan.offsets.tolist()),
        )
        write_record(record, path)
        write_whole(self.pose_path(plan.clip), plan.clip.path.read_bytes())


@dataclass(slots=True, kw_only=True)
class _Plan:
    """Which frames make a clip."""

    clip: ListedClip
    track: PoseTrack
    indices: Int64[np.ndarray, " frames"]
    offsets: Int64[np.ndarray, " frames"]
    frames_per_second: float
    size: tuple[int, int]
    encoder: Mp4Encoder | None = field(default=None)

    def add(self, frame: Frame, frame_format: FrameFormat) -> None:
        if self.encoder is None:
            self.encoder = Mp4Encoder(
                fps=self.frames_per_second,
                crf=frame_format.crf,
                gop=frame_format.gop,
                fast_decode=frame_format.fast_decode,
                full_chroma=False,
            )
        self.encoder.add(frame)

    def again(self) -> _Plan:
        self.encoder = None
        return self


class _TooShort(Exception):
    """A video that ends before the clip does."""


def _plan(clip: ListedClip, info: VideoInfo, video: Path, size: tuple[int, int]) -> _Plan:
    track = parse_pose_file(clip.path)
    annotated = track.timestamps_microseconds
    end = float(info.timestamps_seconds[-1]) + 1 / info.frames_per_second
    if annotated[-1] / 1e6 > end:
        raise _TooShort(
            f"{video}: ends at {end:.3f} s, the last camera of {clip.path} is at {annotated[-1] / 1e6:.3f} s"
        )
    indices, offsets = match_timestamps(track, info, str(clip.path), str(video))
    step = float(np.median(np.diff(annotated))) if len(annotated) > 1 else 1e6 / info.frames_per_second
    return _Plan(clip=clip, track=track, indices=indices, offsets=offsets, frames_per_second=1e6 / step, size=size)


def _scaled(frame: Frame, size: tuple[int, int]) -> UInt8[np.ndarray, "new_height new_width 3"]:
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _there(record: CutRecord | None, *, kept: bool) -> ClipResult:
    assert record is not None, "the record is written before its camera file"
    farthest = max(map(abs, record.timestamp_offsets_microseconds))
    return ClipResult(clip_id=record.clip_id, reason=None, message="", kept=kept, farthest_microseconds=farthest)


def _bad(clip: ListedClip, reason: str, message: str) -> ClipResult:
    return ClipResult(clip_id=clip.clip_id, reason=str(reason), message=message, kept=False, farthest_microseconds=0)


@functools.lru_cache(maxsize=1)  # the clips of one source come one after another
def _sha256_of_source(path: Path) -> str:
    return file_sha256(path)
