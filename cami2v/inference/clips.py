"""Clips to animate, put together and cut into windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Float32
from torch import Tensor

from cami2v.batch import Cameras, ClipBatch


def joined_clips(batches: Sequence[ClipBatch]) -> ClipBatch:
    """Join batches into one; raises ValueError for clips of different sizes or lengths."""
    first = batches[0]
    for other in batches[1:]:
        if other.video.shape[1:] != first.video.shape[1:]:
            raise ValueError(
                f"clips of {_size(first)} and {_size(other)} in one batch; give them one size (portrait=crop) and one "
                "number of frames, or sample them one after the other (batch_size=1)"
            )
    cameras = [batch.cameras for batch in batches]
    return ClipBatch(
        clip_ids=tuple(name for batch in batches for name in batch.clip_ids),
        captions=tuple(caption for batch in batches for caption in batch.captions),
        seeds=torch.cat([batch.seeds for batch in batches]),
        video=torch.cat([batch.video for batch in batches]),
        cameras=Cameras(
            world_to_camera=torch.cat([each.world_to_camera for each in cameras]),
            intrinsics_pixels=torch.cat([each.intrinsics_pixels for each in cameras]),
            translation_scale=torch.cat([each.translation_scale for each in cameras]),
            height=cameras[0].height,
            width=cameras[0].width,
        ),
        frame_indices=torch.cat([batch.frame_indices for batch in batches]),
        frame_stride=torch.cat([batch.frame_stride for batch in batches]),
        frames_per_second=torch.cat([batch.frames_per_second for batch in batches]),
    )


def windows(frames: int, length: int, overlap: int) -> list[range]:
    """Cut `frames` into windows of `length` frames, each of which shares at least `overlap` with the one before.

    The last one ends with the video, and shares more where the numbers do not fit. Raises ValueError for an overlap
    that leaves nothing new in a window.
    """
    if frames <= length:
        return [range(frames)]
    if not 1 <= overlap < length:
        raise ValueError(
            f"overlap={overlap}: {frames} frames are made in windows of {length}; choose 1 to {length - 1} shared ones"
        )
    starts = [*range(0, frames - length, length - overlap), frames - length]
    return [range(start, start + length) for start in starts]


def window_of(batch: ClipBatch, frames: range, image: Float32[Tensor, "batch 3 height width"] | None) -> ClipBatch:
    """Return some frames of every clip, with their cameras; `image` takes the place of what there is to see."""
    chosen = slice(frames.start, frames.stop)
    cameras = batch.cameras
    video = batch.video[:, :, chosen]
    return dataclasses.replace(
        batch,
        video=video if image is None else repeat(image, "b c h w -> b c t h w", t=len(frames)).contiguous(),
        cameras=dataclasses.replace(
            cameras,
            world_to_camera=cameras.world_to_camera[:, chosen],
            intrinsics_pixels=cameras.intrinsics_pixels[:, chosen],
            translation_scale=cameras.translation_scale[:, chosen],
        ),
        frame_indices=batch.frame_indices[:, chosen],
    )


def _size(batch: ClipBatch) -> str:
    _, _, frames, height, width = batch.video.shape
    return f"{frames} frames of {height}x{width}"
