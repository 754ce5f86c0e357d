"""Small U-Nets, conditions and camera methods for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cami2v.backbones.activation_checkpointing import Checkpointing
from cami2v.backbones.dynamicrafter.unet import DynamiCrafterUNet
from cami2v.batch import Cameras, Conditioning
from cami2v.camera_control.base import BlockSite, CameraAdapter
from cami2v.camera_control.cami2v import CamI2V
from cami2v.camera_control.pose_encoder import PoseEncoder

FRAMES = 4
LATENT_SIZE = 8
LATENT_DOWNSAMPLE = 4
QUERIES_PER_FRAME = 2


def tiny_unet(
    adapter_for: Callable[[BlockSite], CameraAdapter | None] = lambda site: None,
    *,
    latent_channels: int = 4,
    activation_checkpointing: Checkpointing = False,
    temporal_dropout: float = 0.0,
    widths: Sequence[int] = (32, 64),
) -> DynamiCrafterUNet:
    """Build a U-Net of two levels, everything its initialisation sets to zero made random."""
    torch.manual_seed(0)
    unet = DynamiCrafterUNet(
        latent_channels=latent_channels,
        widths=list(widths),
        residual_blocks=1,
        attention_downsamples=[1, 2],
        head_width=16,
        transformer_depth=1,
        context_width=24,
        dropout=0.0,
        temporal_dropout=temporal_dropout,
        frames=FRAMES,
        learnable_image_scale=True,
        initial_attention=True,
        activation_checkpointing=activation_checkpointing,
        adapter_for=adapter_for,
    )
    return unet


def randomise(module: nn.Module, seed: int = 1) -> None:
    """Replace all parameters by small random numbers, so that no branch stays silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            scale = fan_in**-0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def tiny_latents(batch: int = 2, *, channels: int = 4, frames: int = FRAMES, size: int = LATENT_SIZE) -> torch.Tensor:
    return torch.randn(batch, channels, frames, size, size, generator=torch.Generator().manual_seed(2))


def tiny_conditioning(latents: torch.Tensor) -> Conditioning:
    """Make random conditions that fit the latents."""
    generator = torch.Generator().manual_seed(3)
    batch, _, frames = latents.shape[:3]
    return Conditioning(
        image_latents=torch.randn(latents.shape, generator=generator),
        text_tokens=torch.randn(batch, 77, 24, generator=generator),
        image_tokens=torch.randn(batch, frames * QUERIES_PER_FRAME, 24, generator=generator),
        frame_rate=torch.arange(1, batch + 1, dtype=torch.float32),
    )


def tiny_cameras(batch: int = 2, *, frames: int = FRAMES, size: int = LATENT_SIZE * LATENT_DOWNSAMPLE) -> Cameras:
    """Move sideways and forward, a little differently in every clip."""
    poses = torch.eye(4, dtype=torch.float64)[:3].repeat(batch, frames, 1, 1)
    steps = torch.arange(frames, dtype=torch.float64)
    for clip in range(batch):
        poses[clip, :, 0, 3] = 0.1 * (clip + 1) * steps
        poses[clip, :, 2, 3] = -0.05 * steps
    intrinsics = torch.tensor([0.9 * size, 0.9 * size, size / 2, size / 2], dtype=torch.float64)
    return Cameras(
        world_to_camera=poses,
        intrinsics_pixels=intrinsics.repeat(batch, frames, 1),
        translation_scale=torch.ones(batch, frames, dtype=torch.float64),
        height=size,
        width=size,
    )


def tiny_pose_encoder() -> PoseEncoder:
    return PoseEncoder(downscale=LATENT_DOWNSAMPLE, widths=[32, 64], residual_blocks=1, num_heads=2, max_frames=FRAMES)


def tiny_cami2v(**changes: Any) -> CamI2V:
    """Build the published method at the tiny U-Net's size, with any argument changed."""
    arguments: dict[str, Any] = {
        "pose_encoder": tiny_pose_encoder(),
        "insertion": "main_branch",
        "attention_levels": [1, 2],
        "full_attention_levels": [],
        "register_tokens": 4,
        "perturb_same_frame": True,
        "trace_scale": 1.0,
        "latent_downsample": LATENT_DOWNSAMPLE,
    }
    control = CamI2V(**(arguments | changes))
    for level in control.attention_levels:
        control.adapter_for(BlockSite(name="offered", kind="encoder", width=32, num_heads=2, downsample=level))
    return control
