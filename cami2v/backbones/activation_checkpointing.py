"""Activation checkpointing (Chen et al., arXiv 1604.06174): the backward pass computes activations again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Checkpointing = bool | Literal["selective"]
"""Whether a part keeps its activations (False), its input only (True), or the results of what is dear to compute.

Temporal transformers keep everything under the last: the cameras' attention within them would be computed twice.
"""

Result = TypeVar("Result")

_DEAR = {
    "mm", "addmm", "convolution", "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_flash_attention_for_cpu",
}  # fmt: skip
# Products of stacks (bmm) are left out: linear layers have none, attention that works in pieces many.
_KEPT = {getattr(torch.ops.aten, name).default for name in _DEAR}


def run_part(part: Callable[..., Result], hidden: torch.Tensor, *others: object, how: Checkpointing) -> Result:
    """Call `part` on `hidden` and what else it takes; without gradients nothing is kept anyway."""
    if how is False or not hidden.requires_grad:
        return part(hidden, *others)
    if how == "selective":
        result: Result = checkpoint(part, hidden, *others, use_reentrant=False, context_fn=_keep_dear)
        return result
    result = checkpoint(part, hidden, *others, use_reentrant=False)
    return result


def _policy(context: Any, operation: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


_keep_dear = functools.partial(create_selective_checkpoint_contexts, _policy)
