from __future__ import annotations

import torch

from cami2v.attention.core import attend
from cami2v.attention.masks import DenseMask
from cami2v.backbones.feed_forward import FeedForward


def test_attend_is_softmax_of_scaled_products_per_head() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, 8, generator=generator) for n in (3, 5, 5))
    mask = torch.rand(2, 3, 5, generator=generator) > 0.4
    mask[:, :, 0] = True
    heads = []
    for q, k, v in zip(query.chunk(2, -1), key.chunk(2, -1), value.chunk(2, -1), strict=True):
        scores = (q @ k.mT / 4**0.5).masked_fill(~mask, float("-inf"))
        heads.append(scores.softmax(-1) @ v)
    torch.testing.assert_close(
        attend(query, key, value, num_heads=2, mask=DenseMask(allowed=mask)), torch.cat(heads, -1)
    )


def test_attend_gives_zero_where_the_mask_leaves_no_key() -> None:
    tokens = torch.randn(1, 4, 8)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[0, 2] = False
    attended = attend(tokens, tokens, tokens, num_heads=2, mask=DenseMask(allowed=mask))
    assert torch.equal(attended[0, 2], torch.zeros(8))
    assert torch.isfinite(attended).all()


def test_feed_forward_gates_with_the_second_half() -> None:
    layer = FeedForward(width=2)
    torch.nn.init.zeros_(layer.to_value_and_gate.weight)
    with torch.no_grad():
        layer.to_value_and_gate.bias.copy_(torch.cat([torch.full((8,), 3.0), torch.full((8,), -100.0)]))
    closed = layer(torch.randn(1, 1, 2))
    torch.testing.assert_close(closed[0, 0], layer.to_output.bias)
