"""Multi-head self-attention."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cami2v.attention.core import AttentionCore


class SelfAttention(nn.Module):
    """Multi-head self-attention without query, key and value biases."""

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key = nn.Linear(width, width, bias=False)
        self.to_value = nn.Linear(width, width, bias=False)
        self.attention = AttentionCore(num_heads=num_heads)
        self.to_output = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Attend among the tokens of each batch row."""
        attended = self.attention(self.to_query(tokens), self.to_key(tokens), self.to_value(tokens))
        return self.to_output(attended)
