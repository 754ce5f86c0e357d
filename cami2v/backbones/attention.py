"""Attention and feed-forward layers. `attend` is the one place where attention is computed."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


def attend(
    query: Float[Tensor, "batch queries query_width"],
    key: Float[Tensor, "batch keys query_width"],
    value: Float[Tensor, "batch keys value_width"],
    *,
    num_heads: int,
    mask: Bool[Tensor, "batch queries keys"] | None = None,
) -> Float[Tensor, "batch queries value_width"]:
    """Compute multi-head scaled dot-product attention; True in `mask` means that the query may see the key."""
    query, key, value = (rearrange(x, "b n (h c) -> b h n c", h=num_heads) for x in (query, key, value))
    mask = None if mask is None else mask.unsqueeze(1)
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return rearrange(attended, "b h n c -> b n (h c)")


class SelfAttention(nn.Module):
    """Multi-head self-attention without query, key and value biases."""

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key = nn.Linear(width, width, bias=False)
        self.to_value = nn.Linear(width, width, bias=False)
        self.to_output = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Attend among the tokens of each batch row."""
        attended = attend(self.to_query(tokens), self.to_key(tokens), self.to_value(tokens), num_heads=self.num_heads)
        return self.to_output(attended)


class FeedForward(nn.Module):
    """Gated feed-forward layer: project(value * gelu(gate)) (GEGLU, arXiv 2002.05202)."""

    def __init__(self, *, width: int, expansion: int = 4) -> None:
        super().__init__()
        self.to_value_and_gate = nn.Linear(width, 2 * expansion * width)
        self.to_output = nn.Linear(expansion * width, width)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Transform each token by itself."""
        value, gate = self.to_value_and_gate(tokens).chunk(2, dim=-1)
        return self.to_output(value * functional.gelu(gate))
