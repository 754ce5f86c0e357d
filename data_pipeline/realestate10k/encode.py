"""Turn an inspected clip into the members of its shard sample.

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cami2v.video import Frame, encode_mp4
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.realestate10k.inspect import InspectedClip
from data_pipeline.realestate10k.parse import parse_metric_scale

SAMPLE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFormat:
    """How frames are stored."""

    short_side: int
    """Larger frames are scaled down to it; smaller ones are stored as they are."""
    crf: int
    gop: int
    fast_decode: bool

    def packed_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the stored height and width: even, because H.264 with yuv420p needs it."""
        scale = min(1.0, self.short_side / min(height, width))
        return _even(height * scale), _even(width * scale)


def encode_clip(clip: InspectedClip, frame_format: FrameFormat, tool: str) -> dict[str, bytes]:
    """Return the sample's members by extension; raises BadClip where the video does not decode."""
    track = clip.files.track()
    height, width = frame_format.packed_size(clip.native_height, clip.native_width)
    try:
        video = encode_mp4(
            _scaled_frames(clip, height, width),
            fps=clip.frames_per_second,
            crf=frame_format.crf,
            gop=frame_format.gop,
            fast_decode=frame_format.fast_decode,
        )
    except ValueError as error:
        raise BadClip(Reason.VIDEO_UNREADABLE, str(error)) from error
    arrays = {
        "world_to_camera": track.world_to_camera,
        "intrinsics_normalized": track.intrinsics_normalized,
        "timestamps_microseconds": track.timestamps_microseconds,
    }
    if clip.files.metric_scale is not None:
        frames = len(track.timestamps_microseconds)
        scale = parse_metric_scale(clip.files.metric_scale, frames, clip.files.clip_id)
        arrays["metric_scale"] = scale.astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the arrays for its flag
    cameras = buffer.getvalue()
    about = {
        "format_version": SAMPLE_VERSION,
        "clip_id": clip.files.clip_id,
        "source_id": clip.source_id,
        "address": track.address,
        "captions": list(clip.captions),
        "native": {
            "height": clip.native_height,
            "width": clip.native_width,
            "frames_per_second": clip.native_frames_per_second,
            "rotation_applied_degrees": clip.rotation_degrees,
        },
        "packed": {
            "height": height,
            "width": width,
            "frames": len(clip.frame_indices),
            "frames_per_second": clip.frames_per_second,
        },
        # A stored pixel covers native_width / width native ones.
        "pixel_aspect": clip.pixel_aspect * (clip.native_width / width) / (clip.native_height / height),
        "timestamp_offsets_microseconds": clip.offsets_microseconds.tolist(),
        "sha256": {"mp4": _sha256(video), "cameras.npz": _sha256(cameras)},
        "provenance": {"tool": tool, "video_sha256": clip.video_sha256, "poses_sha256": clip.poses_sha256},
    }
    return {"mp4": video, "cameras.npz": cameras, "json": (json.dumps(about) + "\n").encode()}


def _scaled_frames(clip: InspectedClip, height: int, width: int) -> Iterator[Frame]:
    for frame in clip.frame_source.frames(clip.frame_indices.tolist()):
        if frame.shape[:2] == (height, width):
            yield frame
        else:
            yield np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def _even(size: float) -> int:
    return 2 * max(round(size / 2), 1)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
