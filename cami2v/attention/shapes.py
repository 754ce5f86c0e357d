"""Attention without numbers: what a fused kernel would allocate and compute, for counting memory and operations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cami2v.attention.core import AttentionCore
from cami2v.attention.masks import AttentionMask


class CountedCore(AttentionCore):
    """Stands in for an `AttentionCore` under `FakeTensorMode`, where no value exists that a mask could depend on.

    Every query-key pair is counted, also those outside an epipolar band.
    """

    def forward(
        self,
        query: Float[Tensor, "batch queries query_width"],
        key: Float[Tensor, "batch keys query_width"],
        value: Float[Tensor, "batch keys value_width"],
        **mask: object,
    ) -> Float[Tensor, "batch queries value_width"]:
        """Attend without mask, through the one fused operator that has a shape function and needs no GPU."""
        heads = [x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value)]
        if torch.is_autocast_enabled("cpu"):
            heads = [x.to(torch.get_autocast_dtype("cpu")) for x in heads]
        attended = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads)[0]
        return attended.transpose(1, 2).flatten(-2)

    def prepare(self, mask: AttentionMask, *, always_visible: int) -> None:
        """Build nothing."""


def count_attention(model: nn.Module) -> None:
    """Replace every attention core of a model by one that only counts."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, AttentionCore):
                setattr(module, name, CountedCore(num_heads=child.num_heads, masked=child.masked))
