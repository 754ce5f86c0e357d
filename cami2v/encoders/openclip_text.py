"""OpenCLIP's text tower, read before its last block (arXiv 2212.07143)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from cami2v.encoders.base import TextEncoder, fixed_initialisation
from cami2v.encoders.late_import import imported

CONTEXT_LENGTH = 77
VOCABULARY = 49408


class OpenCLIPTextEncoder(TextEncoder):
    """Encode captions to the final-normed tokens of all blocks but the last one.

    `layers` counts the published tower's blocks; the last, never used, is not built. Without `weights` (safetensors
    with this module's parameter names) the tower is random, drawn from `seed`.
    """

    def __init__(
        self, *, width: int, num_heads: int, layers: int, seed: int = 0, weights: str | Path | None = None
    ) -> None:
        super().__init__()
        self.width = width
        open_clip = imported("open_clip")
        with fixed_initialisation(seed):
            self.tower = open_clip.transformer.TextTransformer(
                context_length=CONTEXT_LENGTH,
                vocab_size=VOCABULARY,
                width=width,
                heads=num_heads,
                layers=layers - 1,
                output_dim=None,
                pool_type="none",
            )
        if weights is not None:
            self.load_state_dict(load_file(weights))
        self.tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)

    def encode(self, captions: Sequence[str]) -> Float[Tensor, "batch 77 channels"]:
        """Encode captions; longer ones are cut after 77 tokens, padding is encoded like text."""
        tokens = self.tokenizer(list(captions)).to(self.tower.positional_embedding.device)
        with torch.no_grad():
            return self.tower(tokens)
