"""Which frame of a clip the model is shown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from cami2v.draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionFrame:
    """The first frame, or (`random`) one drawn for each sample."""

    random: bool

    def draw(self, draws: Draws, frames: int) -> Int64[Tensor, " batch"]:
        """Return the conditioning frame of every sample of a batch."""
        if self.random:
            return draws.integers("condition_frame", frames)
        return torch.zeros(len(draws.seeds), dtype=torch.int64, device=draws.device)

    def __call__(self, seed: int, frames: int) -> int:
        """Return the conditioning frame of the sample with this seed: what `draw` gives it in a batch."""
        return int(self.draw(Draws(torch.tensor([seed])), frames))
