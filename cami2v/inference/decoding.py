"""Latents to frames in bounded memory: some frames at a time, or tile by tile."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cami2v.encoders.base import FirstStage

TILE_OVERLAP = 0.25
"""Share of a tile over which it fades into the next one."""


def decode(
    first_stage: FirstStage,
    latents: Float[Tensor, "batch channels frames height width"],
    *,
    frames_at_once: int | None = None,
    tile: int | None = None,
) -> Float[Tensor, "batch 3 frames _height _width"]:
    """Decode latents, `frames_at_once` frames of a clip at a time; first stages see frames one by one: nothing changes.

    `tile` is the side of square tiles, in latents. They overlap by a quarter and are blended, because a first stage
    sees beyond a tile's border: an approximation, for sizes that do not fit otherwise. Raises ValueError for tiles of
    less than 4 latents.
    """
    chunk = latents.shape[2] if frames_at_once is None else frames_at_once
    chunks = latents.split(max(chunk, 1), dim=2)
    decoded = [first_stage.decode(part) if tile is None else _tiled(first_stage, part, tile) for part in chunks]
    return torch.cat(decoded, dim=2)


def _tiled(
    first_stage: FirstStage, latents: Float[Tensor, "batch channels frames height width"], tile: int
) -> Float[Tensor, "batch 3 frames _height _width"]:
    if tile < 4:
        raise ValueError(f"decode_tile={tile}: tiles need a side of at least 4 latents")
    height, width = latents.shape[-2:]
    factor = first_stage.downsample
    total = latents.new_zeros((latents.shape[0], 3, latents.shape[2], height * factor, width * factor))
    weights = torch.zeros_like(total[:1, :1, :1])
    for top in _starts(height, tile):
        for left in _starts(width, tile):
            rows, columns = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
            piece = first_stage.decode(latents[..., rows, columns])
            weight = _fade(rows, tile, factor, piece)[:, None] * _fade(columns, tile, factor, piece)
            place = (..., slice(rows.start * factor, rows.stop * factor), slice(left * factor, columns.stop * factor))
            total[place] += piece * weight
            weights[place] += weight
    return total / weights


def _starts(length: int, tile: int) -> list[int]:
    """Return where tiles begin; the last one ends with the latents."""
    if length <= tile:
        return [0]
    stride = max(1, round(tile * (1 - TILE_OVERLAP)))
    return [*range(0, length - tile, stride), length - tile]


def _fade(latents: slice, tile: int, factor: int, like: Tensor) -> Float[Tensor, " length"]:
    """Weigh the pixels of a tile along one side: rising from its borders over the overlap."""
    length = (latents.stop - latents.start) * factor
    distance = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(distance, distance.flip(0)).clamp_max(max(1.0, tile * factor * TILE_OVERLAP))
