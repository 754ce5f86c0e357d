"""Exact attention within epipolar bands, forward and backward, over the pairs of cells that see each other.

For every pair of frames only bundles of queries and the keys they see are multiplied. Softmax runs over all key frames
of a query frame with a running maximum and sum; the backward pass computes the weights again. Nothing but the inputs,
the output and one number per query and head is kept, and no copy of them is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cami2v.attention.bundles import FramePair, bundles_of
from cami2v.attention.epipolar_bands import EpipolarBands


def attend_bands(
    query: Float[Tensor, "batch heads queries head_width"],
    key: Float[Tensor, "batch heads keys head_width"],
    value: Float[Tensor, "batch heads keys value_head_width"],
    bands: EpipolarBands,
    always_visible: int,
) -> Float[Tensor, "batch heads queries value_head_width"]:
    """Attend within epipolar bands, in memory linear in the tokens."""
    # The tensors have the dtype that autocast would choose.
    with torch.autocast(query.device.type, enabled=False):
        attended: Tensor = _BandedAttention.apply(query, key, value, bands, always_visible)
    return attended


class _BandedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bands: EpipolarBands, always_visible: int
    ) -> Tensor:
        batch, heads, count, _ = query.shape
        # Laid out as the caller wants it, heads beside channels: no copy then.
        output = query.new_empty(batch, count, heads, value.shape[-1])
        logsumexp = query.new_empty(batch, count, heads, dtype=_exact(query))
        for clip in range(batch):
            layer = _Layer.of(query[clip], key[clip], value[clip], bands, clip, always_visible)
            for frame in range(bands.grid.frames):
                mine = slice(frame * bands.grid.cells, (frame + 1) * bands.grid.cells)
                output[clip, mine], logsumexp[clip, mine] = _forward(layer, frame)
        output = output.transpose(1, 2)
        ctx.save_for_backward(query, key, value, output, logsumexp)
        ctx.bands, ctx.always_visible = bands, always_visible
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        # A backward pass may run under another autocast than its forward pass.
        with torch.autocast(gradient.device.type, enabled=False):
            of_query, of_key, of_value = _gradients(ctx, gradient)
        return of_query, of_key, of_value, None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One clip's tokens, head by head within each token: row number = token * heads + head."""

    query: Float[Tensor, "query_rows head_width"]
    key: Float[Tensor, "key_rows head_width"]
    value: Float[Tensor, "key_rows value_head_width"]
    heads: int
    bands: EpipolarBands
    clip: int
    always_visible: int

    @classmethod
    def of(
        cls, query: Tensor, key: Tensor, value: Tensor, bands: EpipolarBands, clip: int, always_visible: int
    ) -> _Layer:
        query, key, value = (x.transpose(0, 1).flatten(0, 1) for x in (query, key, value))
        heads = query.shape[0] // bands.shape[1]
        return cls(
            query=query, key=key, value=value, heads=heads, bands=bands, clip=clip, always_visible=always_visible
        )

    @property
    def scale(self) -> float:
        return float(self.query.shape[-1] ** -0.5)

    def rows(self, cells: Tensor) -> Int64[Tensor, "bundles heads places"]:
        """Number the rows of cells, counted from a frame's first."""
        heads = torch.arange(self.heads, device=cells.device)
        return cells.long()[:, None] * self.heads + heads[:, None]

    def frame_rows(self, frame: int) -> Float[Tensor, "rows head_width"]:
        """Return the queries of a frame."""
        cells = self.bands.grid.cells
        return self.query[frame * cells * self.heads : (frame + 1) * cells * self.heads]

    def meetings(self, frame: int) -> Iterator[_Meeting]:
        """Yield all that the queries of a frame have to meet but the keys that everybody sees."""
        cells = self.bands.grid.cells
        for slot, found in enumerate(bundles_of(self.bands)[self.clip][frame]):
            pair = FramePair.of(self.bands, self.clip, frame, slot)
            first = (self.always_visible + slot * cells) * self.heads
            for some in found:
                seen = pair.sees(some.queries, some.keys)
                exact = _exact(self.query)
                hidden = torch.zeros(seen.shape, dtype=exact, device=seen.device).masked_fill_(~seen, float("-inf"))
                yield _Meeting(
                    queries=self.rows(some.queries),
                    keys=self.rows(some.keys.clamp_max(cells - 1)) + first,
                    hidden=hidden[:, None],
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meeting:
    """Some bundles with their keys."""

    queries: Int64[Tensor, "bundles heads bundle"]
    """Rows within the query frame; one row behind the last stands for nobody."""
    keys: Int64[Tensor, "bundles heads keys"]
    """Rows of the clip's keys."""
    hidden: Float[Tensor, "bundles 1 bundle keys"]
    """0 for a pair that sees each other, else minus infinity."""

    def scores(self, query: Tensor, key: Tensor) -> Float[Tensor, "bundles heads bundle keys"]:
        return (query @ key.mT).add_(self.hidden)


def _forward(layer: _Layer, frame: int) -> tuple[Tensor, Tensor]:
    """Return the output and the log of the softmax's denominator of a frame's queries."""
    exact, heads = _exact(layer.query), layer.heads
    query = layer.frame_rows(frame)
    rows = query.shape[0] + heads
    highest = torch.full((rows,), torch.finfo(exact).min, dtype=exact, device=query.device)
    total, summed = torch.zeros_like(highest), highest.new_zeros(rows, layer.value.shape[-1])
    if layer.always_visible:
        scores, _, seen = _with_everybody(layer, query)
        highest[:-heads] = scores.amax(dim=-1).flatten()
        weights = scores.sub_(highest[:-heads].view(-1, heads, 1)).exp_()
        total[:-heads] = weights.sum(dim=-1).flatten()
        summed[:-heads] = torch.einsum("nhr,rhc->nhc", weights, seen).flatten(0, 1)
    for meeting in layer.meetings(frame):
        q = _gathered(query, meeting.queries.clamp_max(query.shape[0] - 1), exact).mul_(layer.scale)
        scores = meeting.scores(q, _gathered(layer.key, meeting.keys, exact))
        before = highest[meeting.queries]
        now = torch.maximum(before, scores.amax(dim=-1))
        weights = scores.sub_(now[..., None]).exp_()
        kept = (before - now).exp_()
        place = meeting.queries.flatten()
        highest[place] = now.flatten()
        total[place] = torch.addcmul(weights.sum(dim=-1), total[meeting.queries], kept).flatten()
        partial = _gathered(summed, meeting.queries, exact).mul_(kept[..., None])
        partial.add_(weights @ _gathered(layer.value, meeting.keys, exact))
        summed.index_copy_(0, place, partial.flatten(0, -2))
    highest, total, summed = highest[:-heads], total[:-heads], summed[:-heads]
    # A query without any key: zeros, and a weight of zero in the backward pass.
    nothing = total == 0
    logsumexp = (highest + total.log()).masked_fill_(nothing, float("inf"))
    output = summed.div_(total.masked_fill_(nothing, 1)[:, None])
    return output.unflatten(0, (-1, heads)), logsumexp.unflatten(0, (-1, heads))


def _backward(
    layer: _Layer, frame: int, upstream: Tensor, alignment: Tensor, logsumexp: Tensor, of_key: Tensor, of_value: Tensor
) -> Tensor:
    """Return the gradient of a frame's queries and add those of the keys and values to `of_key` and `of_value`.

    `alignment` is the product of the output and its gradient, summed over channels.
    """
    exact, heads = _exact(layer.query), layer.heads
    query = layer.frame_rows(frame)
    of_query = torch.zeros_like(query, dtype=exact)
    if layer.always_visible:
        scores, key, value = _with_everybody(layer, query)
        weights = scores.sub_(logsumexp.view(-1, heads, 1)).exp_()
        by_head = upstream.view(-1, heads, upstream.shape[-1])
        registers = layer.always_visible * heads
        of_value[:registers] += torch.einsum("nhr,nhc->rhc", weights, by_head).flatten(0, 1)
        of_scores = torch.einsum("nhc,rhc->nhr", by_head, value).sub_(alignment.view(-1, heads, 1)).mul_(weights)
        of_query += torch.einsum("nhr,rhc->nhc", of_scores, key).flatten(0, 1)
        by_head = query.view(-1, heads, query.shape[-1]).to(exact) * layer.scale
        of_key[:registers] += torch.einsum("nhr,nhc->rhc", of_scores, by_head).flatten(0, 1)
    for meeting in layer.meetings(frame):
        place = meeting.queries.clamp_max(query.shape[0] - 1)
        q = _gathered(query, place, exact).mul_(layer.scale)
        k = _gathered(layer.key, meeting.keys, exact)
        weights = meeting.scores(q, k).sub_(logsumexp[place][..., None]).exp_()
        given = _gathered(upstream, place, exact)
        of_value.index_add_(0, meeting.keys.flatten(), (weights.mT @ given).flatten(0, -2))
        v = _gathered(layer.value, meeting.keys, exact)
        of_scores = (given @ v.mT).sub_(alignment[place][..., None]).mul_(weights)
        of_query.index_add_(0, place.flatten(), (of_scores @ k).flatten(0, -2))
        of_key.index_add_(0, meeting.keys.flatten(), (of_scores.mT @ q).flatten(0, -2))
    return of_query.mul_(layer.scale)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value, output, logsumexp = ctx.saved_tensors
    exact, cells = _exact(query), ctx.bands.grid.cells
    of_query, of_key, of_value = (_zeros(x, x.dtype if x is query else exact) for x in (query, key, value))
    for clip in range(query.shape[0]):
        layer = _Layer.of(query[clip], key[clip], value[clip], ctx.bands, clip, ctx.always_visible)
        of_keys = of_key[clip].flatten(0, 1), of_value[clip].flatten(0, 1)
        for frame in range(ctx.bands.grid.frames):
            mine = slice(frame * cells, (frame + 1) * cells)
            upstream, attended = (x[clip].transpose(0, 1)[mine].flatten(0, 1).to(exact) for x in (gradient, output))
            saved = upstream, (upstream * attended).sum(dim=-1), logsumexp[clip, mine].flatten()
            of_query[clip, mine] = _backward(layer, frame, *saved, *of_keys).view_as(of_query[clip, mine])
    of_key, of_value = of_key.to(key.dtype), of_value.to(value.dtype)
    return of_query.transpose(1, 2), of_key.transpose(1, 2), of_value.transpose(1, 2)


def _with_everybody(layer: _Layer, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores of the keys that everybody sees, and those keys and values, by token and head."""
    exact, heads = _exact(query), layer.heads
    first = slice(0, layer.always_visible * heads)
    key, value = (x[first].unflatten(0, (-1, heads)).to(exact) for x in (layer.key, layer.value))
    by_head = query.unflatten(0, (-1, heads)).to(exact)
    return torch.einsum("nhc,rhc->nhr", by_head, key).mul_(layer.scale), key, value


def _gathered(
    rows: Float[Tensor, "rows width"], numbers: Int64[Tensor, "bundles heads places"], dtype: torch.dtype
) -> Float[Tensor, "bundles heads places width"]:
    return rows.index_select(0, numbers.flatten()).to(dtype).unflatten(0, numbers.shape)


def _exact(tensor: Tensor) -> torch.dtype:
    """Sums over many keys: not in half precision."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _zeros(tensor: Float[Tensor, "batch heads n c"], dtype: torch.dtype) -> Float[Tensor, "batch n heads c"]:
    batch, heads, count, width = tensor.shape
    return torch.zeros(batch, count, heads, width, dtype=dtype, device=tensor.device)
