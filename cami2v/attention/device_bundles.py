"""Bundles for the kernels in Triton: all pairs of frames at once, found on the device without the host waiting."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor
from torch.nn import functional

from cami2v.attention.bundles import BUNDLE, epipoles, pencil_positions
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.geometry.epipolar import CellGrid

LISTED_KEYS, LISTED_QUERIES = 1 / 4, 1 / 2
"""Part of a frame up to which a bundle's keys or queries are listed; a bundle that meets more walks the whole frame."""

RINGS = (1.5, 4.0, 12.0)
"""Distances from the epipole, in cells, at which bundles of keys end: a key at the epipole is seen by every query."""

BLOCK = 64
"""Cells that are tested against a bundle at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """Bundles of the cells of one frame and what they meet in another, for every query frame and slot of key frame."""

    order: Int[Tensor, "clips frames slots places"]
    """Cells, bundle by bundle; the number of cells stands where the last one has fewer."""
    lists: Int[Tensor, "clips frames slots bundles capacity"]
    """Cells that a bundle meets, ascending; undefined behind their number."""
    counts: Int[Tensor, "clips frames slots bundles"]
    """More than the capacity: the bundle's list is not complete."""


def pair_lines(bands: EpipolarBands) -> Float32[Tensor, "clips frames slots 3 cells"]:
    """Return the lines of all cells; zeros, which are near everything, for a query that sees the whole frame."""
    frames, slots = bands.grid.frames, len(bands.key_frames(0))
    lines = bands.lines()
    open_rows = bands.open_rows()
    if open_rows is not None:
        lines = lines.masked_fill(open_rows[..., None], 0)
    if bands.options.current_frame_as_register_token:
        query_frames = torch.arange(frames, device=lines.device).repeat_interleave(bands.grid.cells)
        lines = lines.masked_fill((query_frames[:, None] == key_frames(bands)[:, None])[..., None], 0)
    by_frame = lines.view(-1, frames, bands.grid.cells, slots, 3)
    return by_frame.permute(0, 1, 3, 4, 2).contiguous()


def key_frames(bands: EpipolarBands) -> Int[Tensor, "clips slots"]:
    """Return the frames whose cells are each clip's keys."""
    return torch.stack([bands.key_frames(clip) for clip in range(bands.shape[0])])


def itself_only(bands: EpipolarBands) -> bool:
    """Tell whether a query sees only itself in its own frame."""
    options = bands.options
    return options.only_self_pixel_on_current_frame and not options.current_frame_as_register_token


def met_by_queries(bands: EpipolarBands, lines: Float32[Tensor, "clips frames slots 3 cells"]) -> Met:
    """Bundle the cells of query frames and list the keys that they meet."""
    return _met(bands, lines, pencil_positions(_matrices(bands), bands.grid), LISTED_KEYS, of_keys=False)


def met_by_keys(bands: EpipolarBands, lines: Float32[Tensor, "clips frames slots 3 cells"]) -> Met:
    """Bundle the cells of key frames and list the queries that they meet."""
    matrices = _matrices(bands)
    positions = torch.pi * rings(matrices, bands.grid) + pencil_positions(matrices.mT, bands.grid)
    return _met(bands, lines, positions, LISTED_QUERIES, of_keys=True)


def multiplied_pairs(bands: EpipolarBands) -> int:
    """Count the pairs that the forward pass multiplies, without filled up blocks; the host waits for it."""
    met: Met = bands.prepared["triton"][1]
    counts = met.counts.long()
    return int(torch.where(counts > met.lists.shape[-1], bands.grid.cells, counts).sum()) * BUNDLE


def rings(fundamental: Float64[Tensor, "*pairs 3 3"], grid: CellGrid) -> Int[Tensor, "*pairs cells"]:
    """Return in which of the `RINGS` around the key frame's epipole each cell lies, the innermost last."""
    cells = torch.arange(grid.cells, device=fundamental.device)
    x, y = grid.centres(cells % grid.columns), grid.centres(cells // grid.columns)
    across, down, scale = epipoles(fundamental)[..., None].unbind(-2)
    # Not divided by the scale, which is zero for an epipole at infinity.
    distance = torch.hypot(across - scale * x, down - scale * y)
    within = [distance < ring * grid.downsample * scale.abs() for ring in RINGS]
    return torch.stack(within).sum(dim=0)


def _matrices(bands: EpipolarBands) -> Float64[Tensor, "clips frames slots 3 3"]:
    by_clip = zip(bands.fundamental, key_frames(bands), strict=True)
    return torch.stack([matrices.index_select(1, frames) for matrices, frames in by_clip]).double()


def _met(
    bands: EpipolarBands,
    lines: Float32[Tensor, "clips frames slots 3 cells"],
    positions: Float[Tensor, "clips frames slots cells"],
    listed: float,
    *,
    of_keys: bool,
) -> Met:
    grid = bands.grid
    dtype = torch.int16 if grid.cells < 2**15 else torch.int32
    order = positions.argsort(dim=-1, stable=True).to(dtype)
    order = functional.pad(order, (0, -grid.cells % BUNDLE), value=grid.cells)
    bundles = order.shape[-1] // BUNDLE
    capacity = max(1, int(listed * grid.cells))
    lists = order.new_empty(*order.shape[:-1], bundles, capacity)
    counts = torch.empty(*order.shape[:-1], bundles, dtype=torch.int32, device=order.device)
    kernels: Any = importlib.import_module("cami2v.attention.triton_kernels")
    with torch.cuda.device_of(order):  # Triton launches on the current device
        kernels.list_met[(counts.numel(),)](
            lines,
            (order, lists, counts, bundles, capacity),
            key_frames(bands),
            (0, grid.frames, order.shape[2]),
            (grid.cells, grid.columns, grid.downsample, grid.downsample / 2 - 0.5, grid.half_width),
            ITSELF=itself_only(bands),
            OF_KEYS=of_keys,
            BUNDLE=BUNDLE,
            BLOCK=BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return Met(order=order, lists=lists, counts=counts)
