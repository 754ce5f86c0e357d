"""Identity of weights: tells whether trained weights meet the frozen base they were trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import torch
from torch import nn


def fingerprint(model: nn.Module, excluding: Collection[str]) -> str:
    """Hash names, shapes and bits of all parameters but `excluding`; order and device do not matter.

    The depth network is left out: training never runs it, so a run may be sampled with or without one.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.named_parameters()):
        if name not in excluding and not name.startswith("depth."):
            values = parameter.detach().cpu().contiguous()
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
