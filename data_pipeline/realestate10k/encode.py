"""Turn an inspected clip into the members of its shard sample.

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from cami2v.video import Frame, encode_jpeg_mp4, encode_mp4
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.realestate10k.inspect import InspectedClip
from data_pipeline.realestate10k.parse import parse_metric_scale

SAMPLE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFormat:
    """How frames of cut clips are stored."""

    short_side: int
    """Larger frames are scaled down to it; smaller ones are stored as they are."""
    crf: int
    gop: int
    fast_decode: bool

    def packed_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the stored height and width: even, because H.264 with yuv420p needs it."""
        scale = min(1.0, self.short_side / min(height, width))
        return _even(height * scale), _even(width * scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFormat(FrameFormat):
    """How frames are stored in shards."""

    codec: Literal["h264", "mjpeg"]
    b_frames: int
    jpeg_quality: int

    def check(self, key: str) -> None:
        """Raise ValueError for values out of range; `key` is where they stand in the config."""
        if self.short_side < 16 or self.short_side % 2 or self.gop < 1 or not 0 <= self.crf <= 51:
            raise ValueError(f"{key}={asdict(self)}: expected an even short_side >= 16, gop >= 1 and crf from 0 to 51")
        if not 0 <= self.b_frames <= 16:
            raise ValueError(f"{key}.b_frames={self.b_frames}: must be between 0 and 16")
        if not 1 <= self.jpeg_quality <= 95:
            raise ValueError(f"{key}.jpeg_quality={self.jpeg_quality}: must be between 1 and 95")

    def grid(self, height: int, width: int) -> StoredGrid:
        """Return what becomes of frames of this size.

        The longer side is truncated to whole pixels as the loader does it (`framing_for`): a set packed at the training
        size needs no second resampling, and has the pixels that the native frames would have given.
        """
        shorter = min(height, width)
        if shorter > self.short_side:
            height, width = height * self.short_side // shorter, width * self.short_side // shorter
        return StoredGrid(resized=(height, width), height=height - height % 2, width=width - width % 2)

    def encode(self, frames: Iterable[Frame], fps: float) -> bytes:
        """Return the video file; raises ValueError where a frame does not decode."""
        if self.codec == "mjpeg":
            return encode_jpeg_mp4(frames, fps=fps, quality=self.jpeg_quality)
        return encode_mp4(
            frames, fps=fps, crf=self.crf, gop=self.gop, b_frames=self.b_frames, fast_decode=self.fast_decode
        )

    def description(self) -> dict[str, Any]:
        """Return what manifests say: the settings that this codec uses."""
        size = {"container": "mp4", "codec": self.codec, "short_side": self.short_side}
        if self.codec == "mjpeg":
            return {**size, "pixels": "yuvj420p", "jpeg_quality": self.jpeg_quality}
        h264 = {"crf": self.crf, "gop": self.gop, "b_frames": self.b_frames, "fast_decode": self.fast_decode}
        return {**size, "pixels": "yuv420p", **h264}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGrid:
    """Frames are scaled to `resized`; of an odd number of rows or columns, which H.264 cannot store, the last one goes.

    Centre crops of an even size are the same pixels with and without that column.
    """

    resized: tuple[int, int]
    height: int
    width: int

    def apply(self, frame: Frame) -> UInt8[np.ndarray, "stored_height stored_width 3"]:
        """Scale and cut one frame: bilinear with antialiasing, like the loader."""
        if frame.shape[:2] != self.resized:
            size = (self.resized[1], self.resized[0])
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        return frame[: self.height, : self.width]

    def intrinsics(self, normalized: Float64[np.ndarray, "frames 4"]) -> Float64[np.ndarray, "frames 4"]:
        """Return fx fy cx cy divided by the stored size from those divided by the size before."""
        return normalized * np.tile([self.resized[1] / self.width, self.resized[0] / self.height], 2)


def encode_clip(clip: InspectedClip, frame_format: PackedFormat, tool: str) -> dict[str, bytes]:
    """Return the sample's members by extension; raises BadClip where the video does not decode."""
    track = clip.files.track()
    grid = frame_format.grid(clip.native_height, clip.native_width)
    pictures = map(grid.apply, clip.frame_source.frames(clip.frame_indices.tolist()))
    try:
        video = frame_format.encode(pictures, clip.frames_per_second)
    except ValueError as error:
        raise BadClip(Reason.VIDEO_UNREADABLE, str(error)) from error
    arrays = {
        "world_to_camera": track.world_to_camera,
        "intrinsics_normalized": grid.intrinsics(track.intrinsics_normalized),
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
            "height": grid.height,
            "width": grid.width,
            "frames": len(clip.frame_indices),
            "frames_per_second": clip.frames_per_second,
        },
        # Scaling to whole pixels changes it by less than a column's worth, which the intrinsics tell exactly. Were it
        # stated here, the loader would resample frames for the sake of that column.
        "pixel_aspect": clip.pixel_aspect,
        "timestamp_offsets_microseconds": clip.offsets_microseconds.tolist(),
        "sha256": {"mp4": _sha256(video), "cameras.npz": _sha256(cameras)},
        "provenance": {"tool": tool, "video_sha256": clip.video_sha256, "poses_sha256": clip.poses_sha256},
    }
    return {"mp4": video, "cameras.npz": cameras, "json": (json.dumps(about) + "\n").encode()}


def _even(size: float) -> int:
    return 2 * max(round(size / 2), 1)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
