"""Identity of a frozen tower: whether two of them give the same numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from cami2v.checkpoints.fingerprint import fingerprint

WITHOUT_EFFECT = ("weights", "seed", "frames_at_once")
"""Settings that show in the weights, or in no number at all."""


def encoder_identity(tower: nn.Module, settings: Mapping[str, Any]) -> str:
    """Hash a tower's class, weights and settings (its constructor's arguments, defaults included)."""
    counted = {name: value for name, value in settings.items() if name not in WITHOUT_EFFECT}
    kind = f"{type(tower).__module__}.{type(tower).__qualname__}"
    content = [kind, json.dumps(counted, sort_keys=True, default=str), fingerprint(tower, ())]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()[:32]
