"""How much memory a training process needs, from the cost of a step and how the engine spreads weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cami2v.training.engine import EngineSettings, Precision
from cami2v.training.step_cost import StepCost

FULL = 4
"""Bytes of a number in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes that one training process holds on its device at the busiest moment."""

    weights: int
    """The copy that computes, frozen parts included."""
    optimizer: int
    """AdamW's two moments, and the fp32 master weights where the computing copy is not that."""
    working: int
    """Activations, temporaries and gradients (`StepCost.working_bytes`)."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.optimizer + self.working


def parameter_dtype(engine: EngineSettings) -> torch.dtype:
    """Return the dtype of the weights that compute: DeepSpeed casts them, autocast leaves them as they are."""
    if not engine.kind.zero_stage:
        return torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[engine.precision.value]


def estimate_memory(cost: StepCost, engine: EngineSettings, processes: int) -> MemoryEstimate:
    """Apply the formula of docs/preflight.md (ZeRO: Rajbhandari et al., arXiv 1910.02054, section 3).

    With P parameters of which T train, c bytes per computing weight and N processes: weights c P (ZeRO-3: c P / N),
    moments 8 T (ZeRO: 8 T / N), master weights 4 T / N under ZeRO. Buckets, allocator and CUDA context are not in it.
    """
    stage = engine.kind.zero_stage
    width = FULL if not stage or engine.precision is Precision.FP32 else FULL // 2
    share = processes if stage else 1
    moments, masters = 2 * FULL * cost.trained_parameters, (FULL * cost.trained_parameters if stage else 0)
    gradients = width * cost.trained_parameters
    spread_gradients = gradients - gradients // processes if stage >= 2 else 0
    return MemoryEstimate(
        weights=width * cost.parameters // (processes if stage == 3 else 1),
        optimizer=(moments + masters) // share,
        working=max(cost.working_bytes - spread_gradients, 0),
    )
