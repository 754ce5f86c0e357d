"""Attention through xformers' memory-efficient kernels: CUDA only, without masks."""

from __future__ import annotations

import importlib

from jaxtyping import Float
from torch import Tensor


def attend(
    query: Float[Tensor, "batch heads queries head_width"],
    key: Float[Tensor, "batch heads keys head_width"],
    value: Float[Tensor, "batch heads keys value_head_width"],
) -> Float[Tensor, "batch heads queries value_head_width"]:
    """Attend from every query to every key."""
    # Imported at the first use: xformers is optional.
    operations = importlib.import_module("xformers.ops")
    attended = operations.memory_efficient_attention(*(x.transpose(1, 2).contiguous() for x in (query, key, value)))
    return attended.transpose(1, 2)
