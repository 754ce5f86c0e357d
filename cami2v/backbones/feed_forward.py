"""The feed-forward layer of transformer blocks."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


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
