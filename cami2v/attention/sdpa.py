"""Attention through `scaled_dot_product_attention`: any device, dtype and mask.

Bands of clips that are not tiny go to `banded`, which multiplies only the pairs that see each other.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from cami2v.attention import banded
from cami2v.attention.bundles import bundles_of
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask, DenseMask

SMALL_CLIP = 2**20
"""Query-key pairs of a clip up to which its mask is written out after all, once for all layers: 1 MiB at most."""


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
    return banded.attend_bands(query, key, value, bands, always_visible)


def prepare(bands: EpipolarBands) -> None:
    """Build what `attend_bands` keeps with the bands."""
    if bands.shape[1] * bands.shape[2] <= SMALL_CLIP:
        _written_out(bands)
    else:
        bundles_of(bands)


def _written_out(bands: EpipolarBands) -> DenseMask:
    if "sdpa" not in bands.prepared:
        bands.prepared["sdpa"] = DenseMask(allowed=bands.dense())
    mask: DenseMask = bands.prepared["sdpa"]
    return mask


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
