"""Described bands of random and of degenerate camera pairs."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor

from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.geometry.epipolar import CellGrid, EpipolarOptions, fundamental_matrices
from cami2v.geometry.rotations import axis_angle_to_matrix

DOWNSAMPLE = 8
FRAMES = 3
POSES = ("random", "standing still", "pure rotation", "forward", "one frame standing")
EVERY_OPTIONS = [
    EpipolarOptions(
        hybrid=hybrid,
        hybrid_v2=hybrid_v2,
        only_self_pixel_on_current_frame=itself,
        current_frame_as_register_token=current,
    )
    for hybrid, hybrid_v2, itself, current in itertools.product((False, True), repeat=4)
]

OPTIONS = [each for each in EVERY_OPTIONS if sum(dataclasses.astuple(each)) in (0, 1, 4)]


def camera_to_world(poses: str, batch: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    c2w = torch.eye(4, dtype=torch.float64).repeat(batch, FRAMES, 1, 1)
    if poses in ("random", "pure rotation"):
        c2w[..., :3, :3] = axis_angle_to_matrix(
            0.3 * torch.randn(batch, FRAMES, 3, generator=generator, dtype=torch.float64)
        )
    if poses in ("random", "one frame standing"):
        c2w[..., :3, 3] = torch.randn(batch, FRAMES, 3, generator=generator, dtype=torch.float64)
    if poses == "one frame standing":
        c2w[:, 1] = c2w[:, 0]
    if poses == "forward":  # the epipoles lie inside the image
        c2w[..., 2, 3] = 0.3 * torch.arange(FRAMES) * torch.arange(1, batch + 1)[:, None]
    return c2w


def bands(
    poses: str = "random",
    *,
    options: EpipolarOptions | None = None,
    perturbed: bool = False,
    condition_frame: bool = False,
    batch: int = 2,
    rows: int = 4,
    columns: int = 5,
    seed: int = 0,
) -> EpipolarBands:
    """Describe the mask of clips whose feature map has `rows` x `columns` cells."""
    grid = CellGrid(frames=FRAMES, height=rows * DOWNSAMPLE, width=columns * DOWNSAMPLE, downsample=DOWNSAMPLE)
    intrinsics = torch.tensor([grid.width, grid.width, grid.width / 2, grid.height / 2]).repeat(batch, FRAMES, 1)
    noise = torch.randn(batch, FRAMES, FRAMES, 3, generator=torch.Generator().manual_seed(seed + 1))
    fundamental = fundamental_matrices(
        camera_to_world(poses, batch, seed).float(), intrinsics, perturbation=noise if perturbed else None
    )
    return EpipolarBands(
        fundamental=fundamental,
        grid=grid,
        options=options or EpipolarOptions(),
        condition_frame=torch.arange(1, batch + 1) % FRAMES if condition_frame else None,
    )


def tokens(described: EpipolarBands, *, registers: int, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draw query, key and value in float64."""
    batch, queries, keys = described.shape
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(batch, count, width, generator=generator, dtype=torch.float64)
        for count in (queries, registers + keys, registers + keys)
    )
    return query, key, value
