"""One clip of noise seen along an orbit: what a step costs does not depend on what is in the picture."""

from __future__ import annotations

import torch
from einops import rearrange, repeat

from cami2v.batch import Cameras, ClipBatch
from cami2v.geometry.cameras import invert_pose
from cami2v.trajectories.presets import preset


def orbit_batch(frames: int, size: tuple[int, int]) -> ClipBatch:
    """Make the clip, always the same."""
    height, width = size
    poses = invert_pose(preset("orbit_right", frames, 0.5))[:, :3]
    intrinsics = torch.tensor([0.9 * width, 0.9 * width, width / 2, height / 2], dtype=torch.float64)
    return ClipBatch(
        clip_ids=("orbit",),
        captions=("a room",),
        seeds=torch.tensor([1]),
        video=torch.rand((1, 3, frames, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1,
        cameras=Cameras(
            world_to_camera=rearrange(poses, "frames rows columns -> 1 frames rows columns"),
            intrinsics_pixels=repeat(intrinsics, "numbers -> 1 frames numbers", frames=frames),
            translation_scale=torch.ones((1, frames), dtype=torch.float64),
            height=height,
            width=width,
        ),
        frame_indices=torch.arange(frames)[None],
        frame_stride=torch.tensor([1]),
        frames_per_second=torch.tensor([8.0]),
    )
