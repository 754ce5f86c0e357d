"""Attention through `scaled_dot_product_attention`: any device, dtype and mask.

Under a band mask the queries are taken in tiles. Only the rows of the mask that belong to a tile exist at a time, and
the backward pass computes them again, so that memory grows with the tokens and not with their square.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask, DenseMask
from cami2v.geometry.epipolar import CellGrid

TILE_SIDE = 8
"""Cells along each side of a tile of queries on the CPU: neighbours have similar lines, hence see similar keys."""

SMALL_CLIP = 2**20
"""Query-key pairs of a clip up to which its mask is written out after all, once for all layers: 1 MiB at most."""

TILE_ELEMENTS = 2**24
"""Query-key pairs of a tile on other devices."""

PRUNING_DEVICE = "cpu"
"""Where keys that no query of a tile sees are dropped: elsewhere their number would have to be waited for."""


def attend(
    query: Float[Tensor, "batch heads queries head_width"],
    key: Float[Tensor, "batch heads keys head_width"],
    value: Float[Tensor, "batch heads keys value_head_width"],
    mask: AttentionMask | None,
    always_visible: int,
) -> Float[Tensor, "batch heads queries value_head_width"]:
    """Attend without a mask or, in the reference path, with all of it written out."""
    if mask is None:
        return functional.scaled_dot_product_attention(query, key, value)
    allowed = functional.pad(mask.dense(), (always_visible, 0), value=True)
    return _attend_where(query, key, value, allowed[:, None], maybe_empty=not always_visible)


def attend_bands(
    query: Float[Tensor, "batch heads queries head_width"],
    key: Float[Tensor, "batch heads keys head_width"],
    value: Float[Tensor, "batch heads keys value_head_width"],
    bands: EpipolarBands,
    always_visible: int,
) -> Float[Tensor, "batch heads queries value_head_width"]:
    """Attend within epipolar bands, in memory linear in the tokens, forward and backward."""
    if bands.shape[1] * bands.shape[2] <= SMALL_CLIP:
        return attend(query, key, value, _written_out(bands), always_visible)
    return _BandedAttention.apply(query, key, value, bands, always_visible)


def _written_out(bands: EpipolarBands) -> DenseMask:
    if "sdpa" not in bands.prepared:
        bands.prepared["sdpa"] = DenseMask(allowed=bands.dense())
    mask: DenseMask = bands.prepared["sdpa"]
    return mask


class _BandedAttention(torch.autograd.Function):
    """SDPA tile by tile; nothing but the inputs is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bands: EpipolarBands, always_visible: int
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.bands, ctx.always_visible = bands, always_visible
        batch, heads, count, _ = query.shape
        # Laid out as the caller wants it, heads beside channels: no copy then.
        output = query.new_zeros(batch, count, heads, value.shape[-1]).transpose(1, 2)
        for clip, queries, keys, allowed in _tiles(bands, always_visible):
            q, k, v = query[clip][:, queries], _selected(key[clip], keys), _selected(value[clip], keys)
            output[clip, :, queries] = _attend_tile(q, k, v, allowed, maybe_empty=not always_visible)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value = ctx.saved_tensors
        # Sums over many tiles: not in half precision.
        total = torch.promote_types(key.dtype, torch.float32)
        query_gradient = torch.zeros_like(query)
        key_gradient, value_gradient = torch.zeros_like(key, dtype=total), torch.zeros_like(value, dtype=total)
        for clip, queries, keys, allowed in _tiles(ctx.bands, ctx.always_visible):
            parts = query[clip][:, queries], _selected(key[clip], keys), _selected(value[clip], keys)
            q, k, v = (part.detach().requires_grad_() for part in parts)
            with torch.enable_grad():
                attended = _attend_tile(q, k, v, allowed, maybe_empty=not ctx.always_visible)
            of_q, of_k, of_v = torch.autograd.grad(attended, (q, k, v), gradient[clip][:, queries])
            query_gradient[clip, :, queries] = of_q
            for sums, part in ((key_gradient[clip], of_k), (value_gradient[clip], of_v)):
                if keys is None:
                    sums.add_(part)
                else:
                    sums.transpose(0, 1).index_add_(0, keys, part.transpose(0, 1).to(total))
        return query_gradient, key_gradient.to(key.dtype), value_gradient.to(value.dtype), None, None


def _tiles(
    bands: EpipolarBands, always_visible: int
) -> Iterator[tuple[int, Int64[Tensor, " queries"], Int64[Tensor, " keys"] | None, Bool[Tensor, "queries keys"]]]:
    """Yield clip, query tokens, the keys that at least one of them sees (None: take all), and who sees which."""
    batch, _, keys = bands.shape
    device = bands.fundamental.device
    tiles = list(_query_tiles(bands.grid, keys, device))
    for clip in range(batch):
        for queries in tiles:
            allowed = bands.rows(clip, queries)
            selected = None
            if device.type == PRUNING_DEVICE:
                seen = allowed.any(dim=0).nonzero()[:, 0]
                allowed = allowed.index_select(1, seen)
                selected = torch.cat([torch.arange(always_visible), seen + always_visible])
            allowed = functional.pad(allowed, (always_visible, 0), value=True)
            if allowed.shape[1]:
                yield clip, queries, selected, allowed


def _query_tiles(grid: CellGrid, keys: int, device: torch.device) -> Iterator[Int64[Tensor, " queries"]]:
    queries = torch.arange(grid.tokens, device=device)
    if device.type != PRUNING_DEVICE:
        yield from queries.split(max(1, TILE_ELEMENTS // keys))
    else:
        for frame in queries.view(grid.frames, grid.rows, grid.columns):
            for rows in frame.split(TILE_SIDE, dim=0):
                yield from (tile.flatten() for tile in rows.split(TILE_SIDE, dim=1))


def _selected(
    tensor: Float[Tensor, "heads n c"], index: Int64[Tensor, " selected"] | None
) -> Float[Tensor, "heads m c"]:
    # Along the outermost axis in memory: along any other one the whole tensor would be copied first.
    return tensor if index is None else tensor.transpose(0, 1).index_select(0, index).transpose(0, 1)


def _attend_tile(
    query: Float[Tensor, "heads queries head_width"],
    key: Float[Tensor, "heads keys head_width"],
    value: Float[Tensor, "heads keys value_head_width"],
    allowed: Bool[Tensor, "queries keys"],
    *,
    maybe_empty: bool,
) -> Float[Tensor, "heads queries value_head_width"]:
    # The tensors have the dtype that autocast would choose; a backward pass may run under another autocast.
    with torch.autocast(query.device.type, enabled=False):
        return _attend_where(query[None], key[None], value[None], allowed[None, None], maybe_empty=maybe_empty)[0]


def _attend_where(
    query: Float[Tensor, "batch heads queries head_width"],
    key: Float[Tensor, "batch heads keys head_width"],
    value: Float[Tensor, "batch heads keys value_head_width"],
    allowed: Bool[Tensor, "batch 1 queries keys"],
    *,
    maybe_empty: bool,
) -> Float[Tensor, "batch heads queries value_head_width"]:
    if not maybe_empty:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    # Kernels differ in what they make of a row without keys: it never reaches them.
    empty = ~allowed.any(dim=-1, keepdim=True)
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed | empty)
    return attended.masked_fill(empty, 0)
