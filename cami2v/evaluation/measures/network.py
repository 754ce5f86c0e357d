"""What measures that ask a network share: its weights, its device, its precision, and numbers that can be repeated."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cami2v.checkpoints.local_weights import LocalWeights
from cami2v.evaluation.measures.base import Measure

Precision = Literal["float32", "bfloat16"]


class NetworkMeasure(Measure):
    """Loads its network at the first clip, onto this process's GPU where there is one.

    Clips are judged one by one, so that nothing depends on what else is judged or in which order.
    """

    def __init__(self, *, weights: LocalWeights, precision: Precision) -> None:
        self.weights = weights
        self.precision = precision

    @abstractmethod
    def load(self, weights: Path) -> nn.Module:
        """Build the network on the CPU. Raises ValueError for weights that are not its own."""

    @cached_property
    def network(self) -> nn.Module:
        """The network, ready to be asked. Raises ValueError for absent or unexpected weights."""
        loaded = self.load(self.weights.check()).eval().requires_grad_(False)
        return loaded.to(device=this_device(), dtype=getattr(torch, self.precision))

    def prepare(self) -> None:
        """Raise ValueError where the weights are absent, or not the expected ones."""
        self.weights.check()

    def describe(self) -> dict[str, Any]:
        """Return weights and precision. Raises ValueError for absent or unexpected weights."""
        return {**self.weights.describe(), "precision": self.precision}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the network behind: it is loaded where it is needed."""
        return {name: value for name, value in vars(self).items() if name != "network"}


@contextmanager
def repeatable() -> Iterator[None]:
    """Compute without gradients, in the chosen precision (no TF32) and with deterministic convolutions."""
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


def this_device() -> torch.device:
    """Return this process's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
