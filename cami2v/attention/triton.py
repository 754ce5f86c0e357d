"""Attention within epipolar bands through kernels of ours in Triton: only bundles and what they meet are multiplied.

The bundles are those of the CPU's path, found on the device; one launch per frame that all queries, or all keys, meet.
Triton is imported at the first use. For CUDA, or any device under Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cami2v.attention.device_bundles import Met, itself_only, key_frames, met_by_keys, met_by_queries, pair_lines
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask
from cami2v.attention.triton_operators import attend_bundles

WIDEST = 128
"""Channels of a head up to which a program's rows fit a GPU's registers and shared memory."""


def attend(
    query: Float[Tensor, "batch heads queries head_width"],
    key: Float[Tensor, "batch heads keys head_width"],
    value: Float[Tensor, "batch heads keys value_head_width"],
    mask: AttentionMask,
    always_visible: int,
) -> Float[Tensor, "batch heads queries value_head_width"]:
    """Attend within epipolar bands. Raises ValueError for a mask of another kind, too wide a head or float64."""
    if not isinstance(mask, EpipolarBands):
        raise ValueError(f"attention=triton: got a {type(mask).__name__}; use attention=sdpa for masks written out")
    widest = max(query.shape[-1], value.shape[-1])
    if widest > WIDEST:
        raise ValueError(
            f"attention=triton: got heads of {widest} channels, at most {WIDEST} are allowed; use attention=sdpa or "
            "more heads"
        )
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(
            f"attention=triton: got {query.dtype}, allowed: float32, float16, bfloat16; use attention=sdpa"
        )
    differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    lines, queries, keys = _prepared(mask, differentiated=differentiated)
    query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
    grid = mask.grid
    attended: Tensor = attend_bundles(
        query,
        key,
        value,
        lines,
        key_frames(mask),
        [queries.order, queries.lists, queries.counts],
        [] if keys is None else [keys.order, keys.lists, keys.counts],
        [grid.columns, grid.downsample],
        grid.half_width,
        itself_only(mask),
        always_visible,
    )[0]
    return attended


def prepare(bands: EpipolarBands) -> None:
    """Build what `attend` keeps with the bands, for a backward pass too where gradients are on."""
    _prepared(bands, differentiated=torch.is_grad_enabled())


def _prepared(bands: EpipolarBands, *, differentiated: bool) -> tuple[Tensor, Met, Met | None]:
    kept = bands.prepared
    with torch.no_grad():
        if "triton" not in kept:
            lines = pair_lines(bands)
            kept["triton"] = lines, met_by_queries(bands, lines)
        if differentiated and "triton, backward" not in kept:
            kept["triton, backward"] = met_by_keys(bands, kept["triton"][0])
    lines, queries = kept["triton"]
    return lines, queries, kept.get("triton, backward")
