"""What the backward pass computes again: the same gradients, and for `selective` no product twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cami2v.backbones.activation_checkpointing import Checkpointing
from tests.tiny_models import randomise, tiny_conditioning, tiny_latents, tiny_unet

TIMESTEPS = torch.tensor([10, 900])


def step(how: Checkpointing) -> tuple[dict[str, Tensor | None], int]:
    """Return the gradients and the operations of a training step with dropout."""
    unet = tiny_unet(activation_checkpointing=how, temporal_dropout=0.3).train()
    randomise(unet)
    latents = tiny_latents()
    torch.manual_seed(5)
    with FlopCounterMode(display=False) as operations:
        unet(latents, TIMESTEPS, tiny_conditioning(latents), None).square().mean().backward()
    return {name: p.grad for name, p in unet.named_parameters()}, operations.get_total_flops()


@pytest.mark.parametrize("how", [True, "selective"])
def test_no_gradient_changes_and_dropout_draws_the_same(how: Checkpointing) -> None:
    plain, operations = step(False)
    recomputed, more_operations = step(how)
    for name, gradient in plain.items():
        again = recomputed[name]
        assert gradient is not None
        assert again is not None
        assert torch.equal(again, gradient), name
    if how == "selective":
        assert more_operations == operations
    else:
        assert more_operations > 1.15 * operations
