"""Samples straight from raw videos, as the published data set makes them: what the loader is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from cami2v.batch import Cameras, Clip, ClipBatch
from cami2v.geometry.framing import frame_intrinsics, framing_for
from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.layouts.detect import open_source
from data_pipeline.layouts.frames import VideoFile
from data_pipeline.realestate10k.inspect import InspectedClip, inspect_clip
from data_pipeline.stages import collate


@dataclass(frozen=True, slots=True)
class Draw:
    """A clip and the frames that a sample takes of it."""

    clip_id: str
    indices: np.ndarray
    stride: int


class RawVideos:
    """What the published data set does for a sample: read cameras, decode at native size with decord, resize, crop."""

    def __init__(self, folder: Path, resolution: tuple[int, int]) -> None:
        reading = ReadSettings(layout="auto", frames_per_second=None, camera_axes=None, each_clip_is_a_source=True)
        found = open_source(folder, reading).clips
        self.clips = [inspect_clip(files, min_frames=1, default_caption="a video") for files in found]
        self.by_id = {clip.files.clip_id: clip for clip in self.clips}
        self.resolution = resolution

    def load(self, draw: Draw, *, resize_bytes: bool) -> ClipBatch:
        """Return the sample; `resize_bytes` resizes before the conversion to floats, which rounds but is faster."""
        clip = self.by_id[draw.clip_id]
        track = clip.files.track()
        # Imported here: a machine that measures no loader needs no such decoder.
        import decord

        reader = decord.VideoReader(str(_video(clip)), ctx=decord.cpu(0), num_threads=1)
        pixels = torch.from_numpy(reader.get_batch(clip.frame_indices[draw.indices].tolist()).asnumpy())
        images = rearrange(pixels, "frames h w rgb -> frames rgb h w")
        height, width = images.shape[2:]
        framing = framing_for(height, width, self.resolution, clip.pixel_aspect)
        resized = torch.nn.functional.interpolate(
            images if resize_bytes else images.float(), size=framing.resized, mode="bilinear", antialias=True
        )
        bottom, right = framing.top + framing.height, framing.left + framing.width
        cropped = resized[..., framing.top : bottom, framing.left : right]
        normalized = torch.from_numpy(track.intrinsics_normalized[draw.indices])
        single = Clip(
            clip_id=draw.clip_id,
            caption=clip.captions[0],
            seed=0,
            video=(cropped.float() / 255 - 0.5) * 2,
            pixel_aspect=1.0,
            cameras=Cameras(
                world_to_camera=torch.from_numpy(track.world_to_camera[draw.indices]),
                intrinsics_pixels=frame_intrinsics(normalized, framing),
                translation_scale=torch.ones(len(draw.indices), dtype=torch.float64),
                height=framing.height,
                width=framing.width,
            ),
            frame_indices=torch.from_numpy(draw.indices),
            frame_stride=draw.stride,
            frames_per_second=clip.frames_per_second / draw.stride,
        )
        return collate([single])

    @property
    def bytes_per_clip(self) -> float:
        """Return the size of the videos over the number of their clips."""
        return sum(path.stat().st_size for path in {_video(clip) for clip in self.clips}) / len(self.clips)

    def describe(self) -> dict[str, Any]:
        """Return how many clips of how many frames of what size these are."""
        sizes = sorted({(clip.native_width, clip.native_height) for clip in self.clips})
        frames = sorted(len(clip.frame_indices) for clip in self.clips)
        return {
            "clips": len(self.clips),
            "frames": str(frames[0]) if frames[0] == frames[-1] else f"{frames[0]} to {frames[-1]}",
            "size": ", ".join(f"{width}x{height}" for width, height in sizes),
        }


def _video(clip: InspectedClip) -> Path:
    if not isinstance(clip.frame_source, VideoFile):
        raise ValueError(f"{clip.files.where}: its frames are no video file; --clips takes folders of videos")
    return clip.frame_source.path
