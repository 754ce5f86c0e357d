"""The shake of a hand-held camera: smooth, the same for the same seed, at any point in time."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

CYCLES = (0.7, 1.3, 2.1, 3.4, 5.5)
"""Per clip. Amplitudes fall with the frequency."""


def shaken(progress: Float64[Tensor, " frames"], seed: int) -> Float64[Tensor, "frames 6"]:
    """Return offsets of six independent directions with root mean square 1 over the clip, all 0 at its start."""
    generator = torch.Generator().manual_seed(seed)
    phases = torch.rand(6, len(CYCLES), generator=generator, dtype=torch.float64) * 2 * math.pi
    cycles = torch.tensor(CYCLES, dtype=torch.float64)

    def waves(time: Tensor) -> Tensor:
        return (torch.sin(2 * math.pi * cycles * time[:, None, None] + phases) / cycles).sum(-1)

    clip = waves(torch.linspace(0, 1, 1001, dtype=torch.float64)) - waves(progress.new_zeros(1))
    return (waves(progress) - waves(progress.new_zeros(1))) / clip.square().mean(0).sqrt()
