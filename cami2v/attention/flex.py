"""Attention through FlexAttention: the band test inside the kernel, whole blocks of keys skipped.

Within epipolar bands tokens are taken tile by tile (`tiles.tile_order`), register tokens last, so that a block of keys
lies in one place of one frame: fewer blocks hold a visible pair. The block lists are built on the device once per clip
and level and shared by all layers, denoising steps and guidance branches. Compiled on CUDA. On the CPU it runs forward
only, uncompiled, with all scores in memory: good for tests.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from cami2v.attention.block_occupancy import occupancy
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask
from cami2v.attention.tiles import TILE_SIDE, Order, permuted, tile_order

BLOCK = TILE_SIDE**2
"""Queries and keys of a block."""

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def attend(
    query: Float[Tensor, "batch heads queries head_width"],
    key: Float[Tensor, "batch heads keys head_width"],
    value: Float[Tensor, "batch heads keys value_head_width"],
    mask: AttentionMask | None,
    always_visible: int,
) -> Float[Tensor, "batch heads queries value_head_width"]:
    """Attend without a mask or within epipolar bands; raises ValueError for a mask of another kind."""
    if mask is None:
        return _flex_attention(query, key, value, None)
    if not isinstance(mask, EpipolarBands):
        raise ValueError(f"attention=flex: got a {type(mask).__name__}; use attention=sdpa for masks written out")
    queries, keys = token_order(mask, always_visible)
    query = permuted(query, queries)
    attended = _flex_attention(query, permuted(key, keys), permuted(value, keys), block_mask(mask, always_visible))
    return permuted(attended, queries.inverse())


def _flex_attention(query: Tensor, key: Tensor, value: Tensor, blocks: BlockMask | None) -> Tensor:
    attended: Any
    if torch.compiler.is_compiling():  # the whole denoiser is: this is part of it
        attended = flex_attention(query, key, value, block_mask=blocks)
        return attended
    if query.is_cuda:
        attended = _compiled()(query, key, value, block_mask=blocks)
        return attended
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        attended = flex_attention(query, key, value, block_mask=blocks)
    return attended


def token_order(bands: EpipolarBands, always_visible: int) -> tuple[Order, Order]:
    """Return the orders of queries and of keys; made at the first call for these bands."""
    name = f"flex order/{always_visible}"
    if name not in bands.prepared:
        bands.prepared[name] = _token_order(bands, always_visible)
    orders: tuple[Order, Order] = bands.prepared[name]
    return orders


def _token_order(bands: EpipolarBands, always_visible: int) -> tuple[Order, Order]:
    device = bands.fundamental.device
    cells = tile_order(bands.grid, device)
    _, queries, keys = bands.shape
    by_query, by_key = (
        (cells + torch.arange(0, count, bands.grid.cells, device=device)[:, None]).flatten()
        for count in (queries, keys)
    )
    everybody = torch.arange(always_visible, device=device)
    return Order.of(by_query), Order.of(torch.cat([by_key + always_visible, everybody]))


@torch.no_grad()
def block_mask(bands: EpipolarBands, always_visible: int) -> BlockMask:
    """Return the lists of blocks with and without a test for every key; built at the first call for these bands."""
    name = f"flex/{always_visible}"
    if name not in bands.prepared:
        _, queries, keys = bands.shape
        some, every = occupancy(bands, token_order(bands, always_visible)[0], always_visible, BLOCK)
        partial_counts, partial_blocks = _lists(some & ~every)
        full_counts, full_blocks = _lists(every)
        bands.prepared[name] = BlockMask.from_kv_blocks(
            partial_counts,
            partial_blocks,
            full_counts,
            full_blocks,
            BLOCK_SIZE=BLOCK,
            mask_mod=mask_function(bands, always_visible),
            seq_lengths=(queries, always_visible + keys),
        )
    return bands.prepared[name]


def mask_function(bands: EpipolarBands, always_visible: int) -> MaskFunction:
    """Return the band test as FlexAttention calls it: (clip, head, query, key) -> may attend, in the order of tiles."""
    grid, options = bands.grid, bands.options
    cells, visible_keys = grid.cells, bands.shape[2]
    # A tensor: levels differ in it, and FlexAttention takes no number with a fraction that changes between calls.
    half_width = torch.full((), grid.half_width, device=bands.fundamental.device)
    order = tile_order(grid, bands.fundamental.device)
    xs, ys = (grid.centres(each).float() for each in (order % grid.columns, order // grid.columns))
    queries = token_order(bands, always_visible)[0].places
    lines = bands.lines().index_select(1, queries)
    key_frames = torch.stack([bands.key_frames(clip) for clip in range(bands.shape[0])])
    open_rows = bands.open_rows()
    everything = None if open_rows is None else open_rows.index_select(1, queries)

    @no_type_check  # the kernel is compiled from this function: no run-time checks around it, in tests either
    def visible(clip: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        token = key.clamp_max(visible_keys - 1)
        slot, cell = token // cells, token % cells
        x, y = xs[cell], ys[cell]
        a, b, c = (lines[clip, query, slot, number] for number in range(3))
        sees = (a * x + (b * y + c)).abs() < half_width
        if everything is not None:
            sees = sees | everything[clip, query, slot]
        same_frame = query // cells == key_frames[clip, slot]
        if options.only_self_pixel_on_current_frame:
            sees = torch.where(same_frame, query % cells == cell, sees)
        if options.current_frame_as_register_token:
            sees = sees | same_frame
        return sees | (key >= visible_keys)

    return visible


def _lists(occupied: Bool[Tensor, "batch query_blocks key_blocks"]) -> tuple[Tensor, Tensor]:
    """Return for every block of queries how many blocks of keys it has, and their numbers first."""
    counts = occupied.sum(dim=-1, dtype=torch.int32)
    numbers = occupied.to(torch.int32).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return counts[:, None].contiguous(), numbers[:, None].contiguous()


@functools.cache
def _compiled() -> Any:
    # Every level and batch size is a kernel of its own, each with and without gradients: more than the usual 8.
    return torch.compile(flex_attention, dynamic=False, recompile_limit=64)  # type: ignore[call-overload]  # not in stubs
