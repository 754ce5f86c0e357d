"""The random number generators of a process as tensors, so that a checkpoint needs no pickle."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor


def random_states() -> dict[str, Tensor]:
    """Return the states of Python's, NumPy's, PyTorch's and, where there is a GPU, the device's generator."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "python.words": torch.tensor([version, *words]),
        "python.gauss": torch.tensor([float("nan") if gauss is None else gauss], dtype=torch.float64),
        "numpy.words": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy.position": torch.tensor([position, has_gauss]),
        "numpy.gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Tensor]) -> None:
    """Set the generators as `random_states` found them; a device state is left out where there is no device."""
    version, *words = states["python.words"].tolist()
    gauss = float(states["python.gauss"])
    random.setstate((version, tuple(words), None if np.isnan(gauss) else gauss))
    position, has_gauss = states["numpy.position"].tolist()
    keys = states["numpy.words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, float(states["numpy.gauss"])))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
