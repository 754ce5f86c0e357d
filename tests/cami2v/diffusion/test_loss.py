from __future__ import annotations

import pytest
import torch

from cami2v.diffusion.condition_drop import drop_masks
from cami2v.diffusion.loss import diffusion_loss, weighted_loss


def test_loss_is_the_mean_per_sample() -> None:
    prediction, target = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    target[1] = 3
    assert diffusion_loss(prediction, target).tolist() == [1, 9]
    assert diffusion_loss(prediction, target, kind="l1").tolist() == [1, 3]


def test_loss_is_computed_in_float32() -> None:
    prediction, target = torch.full((1, 8), 1.0, dtype=torch.bfloat16), torch.full((1, 8), 1.001)
    assert diffusion_loss(prediction, target).item() == pytest.approx(1e-6, rel=1e-2)


def test_weights_default_to_the_plain_mean() -> None:
    per_sample = torch.tensor([1.0, 3.0])
    total = weighted_loss(
        per_sample,
        torch.tensor([0, 1]),
        log_variance=torch.zeros(2),
        vlb_weights=torch.ones(2),
        simple_weight=1.0,
        vlb_weight=0.0,
    )
    assert total.item() == 2.0


def test_conditions_drop_at_their_rates() -> None:
    drop_text, drop_image = drop_masks(torch.arange(0, 1, 0.0005), 0.05)
    assert drop_text.float().mean().item() == pytest.approx(0.1, abs=1e-3)
    assert drop_image.float().mean().item() == pytest.approx(0.1, abs=1e-3)
    assert (drop_text & drop_image).float().mean().item() == pytest.approx(0.05, abs=1e-3)
    assert not drop_masks(torch.rand(50), 0.0)[0].any()
