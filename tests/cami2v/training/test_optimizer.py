import dataclasses

import pytest

from cami2v.training.optimizer import OptimizerSettings
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


@pytest.mark.parametrize(
    ("key", "value"),
    [("learning_rate", 0.0), ("betas", (0.9, 1.0)), ("epsilon", 0.0), ("weight_decay", -1.0), ("warmup_steps", -1)],
)
def test_values_out_of_range_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"optimizer.{key}: got"):
        settings(**{key: value})
