"""Clips for the evaluator's tests: small batches without meaning, a rendered room, and real clips where they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from jaxtyping import Float32, Float64, UInt8

from cami2v.batch import Cameras, ClipBatch
from cami2v.evaluation.pose_estimation.base import PoseEstimator
from cami2v.video import read_frames
from data_pipeline.synthetic.render import render_frame
from data_pipeline.synthetic.surfaces import build_scene
from data_pipeline.synthetic.world import SyntheticWorld, camera_path, intrinsics_pixels, plan_sources
from launch.compose import compose_config, instantiate_part

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class PosedFrames:
    """A video and the cameras that saw it."""

    frames: UInt8[np.ndarray, "frames height width 3"]
    intrinsics_pixels: Float64[np.ndarray, "frames 4"]
    world_to_camera: Float64[np.ndarray, "frames 3 4"]
    """Of rendered clips in metres."""
    first_depth: Float32[np.ndarray, "height width"] | None = None
    """Of rendered clips: true depth of the first frame in metres."""


def configured_estimator(*overrides: str) -> PoseEstimator:
    """Build the estimator that `cami2v evaluate` uses."""
    config = compose_config("evaluate", ["data.shards=none", *overrides])
    estimator = instantiate_part(config.evaluation.estimator, "evaluation.estimator")
    assert isinstance(estimator, PoseEstimator)
    return estimator


def random_batch(clip_id: str, *, seed: int, frames: int = 4, height: int = 16, width: int = 24) -> ClipBatch:
    """Make a clip of smooth noise whose camera walks in a direction of its own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((frames, 3, height // 8, width // 8), generator=generator) * 2 - 1
    video = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    pose = torch.eye(4, dtype=torch.float64)[:3].repeat(frames, 1, 1)
    pose[:, :, 3] = torch.arange(frames)[:, None] * torch.randn(3, generator=generator, dtype=torch.float64)
    intrinsics = torch.tensor([width, width, width / 2, height / 2], dtype=torch.float64).repeat(frames, 1)
    return ClipBatch(
        clip_ids=(clip_id,),
        captions=("a room",),
        seeds=torch.tensor([seed]),
        video=rearrange(video, "frames channels height width -> 1 channels frames height width"),
        cameras=Cameras(
            world_to_camera=pose[None],
            intrinsics_pixels=intrinsics[None],
            translation_scale=torch.ones((1, frames), dtype=torch.float64),
            height=height,
            width=width,
        ),
        frame_indices=torch.arange(frames)[None],
        frame_stride=torch.ones(1, dtype=torch.int64),
        frames_per_second=torch.full((1,), 8.0),
    )


def synthetic_clip(*, kind: str, frames: int, width: int, height: int) -> PosedFrames:
    """Render one clip of a furnished room with exact cameras."""
    settings = {
        "seed": 3,
        "rooms": 1,
        "sources": "{test: 1}",
        "clips_per_source": 1,
        "frames_per_clip": frames,
        "lead_frames": 0,
        "width": width,
        "height": height,
        "path_kinds": [kind],
        "horizontal_fov_degrees": [60.0, 60.0],
    }
    config = compose_config(
        "pack", ["~world.sources", *(f"++world.{name}={value}" for name, value in settings.items())]
    )
    world: SyntheticWorld = instantiate_part(config.world, "world")
    source = plan_sources(world)[0]
    scene = build_scene(source.room_name, round(0.4 * width), 9)
    path, intrinsics = camera_path(world, source, source.clips[0]), intrinsics_pixels(world, source)
    rendered = [render_frame(scene, pose, intrinsics, height, width, 2) for pose in path]
    return PosedFrames(
        frames=np.stack([colours for colours, _ in rendered]),
        first_depth=rendered[0][1].astype(np.float32),
        intrinsics_pixels=np.tile(intrinsics, (frames, 1)),
        world_to_camera=np.linalg.inv(path)[:, :3],
    )


def real_clip(number: int) -> PosedFrames:
    """Load a real clip, its 16:9 frames stretched back to square pixels; skip the calling test where there are none."""
    folder = Path(os.environ.get("CAMI2V_REAL_CLIPS", REPOSITORY.parent / "shared" / "realestate10k_sample"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder} (set CAMI2V_REAL_CLIPS)")
    poses = sorted((folder / "pose_files").glob("*.txt"))[number]
    rows = np.loadtxt(poses, skiprows=1)
    squashed = torch.from_numpy(read_frames(folder / "video_clips" / f"{poses.stem}.mp4"))
    stretched = torch.nn.functional.interpolate(
        rearrange(squashed, "frames height width channels -> frames channels height width").float(),
        (256, 455), mode="bilinear", antialias=True,
    )  # fmt: skip
    frames = rearrange(
        stretched.round().clamp(0, 255).byte(), "frames channels height width -> frames height width channels"
    )
    return PosedFrames(
        frames=np.ascontiguousarray(frames.numpy()),
        intrinsics_pixels=rows[:, 1:5] * np.array([455, 256, 455, 256]),
        world_to_camera=rows[:, 7:].reshape(-1, 3, 4),
    )
