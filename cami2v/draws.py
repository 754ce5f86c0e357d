"""Random numbers that belong to a sample, not to a process.

Every draw is a function of (sample seed, purpose): batch layout, world size, device and the order of draws never change
it. That is what makes losses comparable across engines and a resumed run identical to an uninterrupted one.
"""

from __future__ import annotations

import copy
import hashlib

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


class Draws:
    """Named random draws for a batch of samples.

    `seeds` are the samples' seeds; results live on `device` with the batch axis first.
    """

    def __init__(self, seeds: Int64[Tensor, " batch"], *, device: torch.device | str = "cpu") -> None:
        self.seeds = [int(seed) for seed in seeds.tolist()]
        self.device = torch.device(device)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Float32[Tensor, "batch ..."]:
        """Draw standard normal numbers of `shape` for every sample."""
        return self._stack([torch.randn(shape, generator=g) for g in self._generators(purpose)])

    def uniform(self, purpose: str) -> Float32[Tensor, " batch"]:
        """Draw one number in [0, 1) for every sample."""
        return self._stack([torch.rand((), generator=g) for g in self._generators(purpose)])

    def integers(self, purpose: str, high: int) -> Int64[Tensor, " batch"]:
        """Draw one integer in [0, high) for every sample."""
        return self._stack([torch.randint(high, (), generator=g) for g in self._generators(purpose)])

    def on(self, device: torch.device | str) -> Draws:
        """Return the same draws, living on another device."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        return moved

    def _generators(self, purpose: str) -> list[torch.Generator]:
        generators = []
        for seed in self.seeds:
            digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
            generators.append(torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1))
        return generators

    def _stack(self, rows: list[Tensor]) -> Tensor:
        return torch.stack(rows).to(self.device)
