import dataclasses

import pytest
import torch

from cami2v.training.optimizer import OptimizerSettings, build_optimizer
from tests.cami2v.training.toys import OPTIMIZER


def settings(**changes: object) -> OptimizerSettings:
    return dataclasses.replace(OPTIMIZER, **changes)  # type: ignore[arg-type]  # any field


def test_constant_schedule_warms_up_linearly() -> None:
    constant = settings(learning_rate=0.1, schedule="constant", warmup_steps=4)
    rates = [constant.learning_rate_at(step, 10) for step in range(6)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_cosine_starts_at_the_full_rate_and_ends_at_zero() -> None:
    cosine = settings(learning_rate=0.1, schedule="cosine", warmup_steps=0)
    assert cosine.learning_rate_at(0, 10) == pytest.approx(0.1)
    assert cosine.learning_rate_at(5, 10) == pytest.approx(0.05)
    assert cosine.learning_rate_at(10, 10) == pytest.approx(0.0)


def test_the_fused_update_is_the_same_update() -> None:
    updated = []
    for fused in (False, True):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        optimizer = build_optimizer(settings(fused=fused), [weight])
        assert optimizer.defaults["fused"] is (True if fused else None)
        for _ in range(3):
            weight.grad = weight.detach().square() + 0.1
            optimizer.step()
        updated.append(weight.detach().clone())
    assert not torch.equal(updated[0], torch.linspace(-1, 1, 7))
    torch.testing.assert_close(updated[1], updated[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [("learning_rate", 0.0), ("betas", (0.9, 1.0)), ("epsilon", 0.0), ("weight_decay", -1.0), ("warmup_steps", -1)],
)
def test_values_out_of_range_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"optimizer.{key}: got"):
        settings(**{key: value})
