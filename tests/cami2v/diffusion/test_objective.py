"""What a training step minimises, and the options no published recipe uses."""

from __future__ import annotations

import pytest
import torch

from cami2v.diffusion.loss import vlb_weights
from cami2v.diffusion.objective import TrainingObjective, mean_squared_error
from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.draws import Draws
from launch.build import build_model
from launch.compose import compose_config

SCHEDULE = NoiseSchedule(
    timesteps=20, beta_start=0.001, beta_end=0.02, kind="linear", zero_terminal_snr=False, dynamic_rescale_base=1.0
)
T, LOSSES = torch.tensor([3, 17]), torch.tensor([1.0, 3.0])


def objective(
    *, noise_offset: float = 0.0, vlb_weight: float = 0.0, log_variance: float = 0.0, learn: bool = False
) -> TrainingObjective:
    return TrainingObjective(
        kind="l2", noise_offset=noise_offset, simple_weight=1.0, vlb_weight=vlb_weight, log_variance=log_variance,
        learn_log_variance=learn, timesteps=20,
    )  # fmt: skip


def combined(chosen: TrainingObjective) -> torch.Tensor:
    return chosen.combine(LOSSES, T, schedule=SCHEDULE, prediction=Prediction.EPS)


def test_the_default_is_the_plain_mean_and_has_nothing_to_train_or_store() -> None:
    assert torch.equal(combined(mean_squared_error(20)), LOSSES.mean())
    assert not mean_squared_error(20).state_dict()


def test_the_bound_is_added_with_its_weight() -> None:
    bound = (vlb_weights(SCHEDULE, Prediction.EPS)[T] * LOSSES).mean()
    assert combined(objective(vlb_weight=0.5)).item() == pytest.approx((2 + 0.5 * bound).item())


def test_a_learned_log_variance_moves_towards_the_logarithm_of_the_loss() -> None:
    learned = objective(log_variance=0.2, learn=True)
    assert combined(learned).item() == pytest.approx(combined(objective(log_variance=0.2)).item())
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        combined(learned).backward()
        optimizer.step()
    assert learned.log_variance is not None
    torch.testing.assert_close(learned.log_variance[T].detach(), LOSSES.log(), atol=1e-2, rtol=0)
    assert learned.log_variance[5].item() == pytest.approx(0.2)


def test_the_offset_is_one_number_per_channel_and_frame_and_leaves_the_noise_as_it_was() -> None:
    draws = Draws(torch.tensor([1, 2]))
    plain, shifted = (objective(noise_offset=each).draw_noise(draws, (4, 3, 5, 6)) for each in (0.0, 0.1))
    offset = shifted - plain
    torch.testing.assert_close(offset, offset[..., :1, :1].expand_as(offset), atol=1e-6, rtol=0)
    assert offset[..., 0, 0].unique().numel() == 2 * 4 * 3


@pytest.mark.parametrize("policy", ["camera", "all"])
def test_a_learned_log_variance_is_a_weight_of_the_model_that_trains(policy: str) -> None:
    small = ["data.frames=3", "data.resolution=[32,32]", "backbone.widths=[32,64]", "backbone.head_width=16"]
    model = build_model(compose_config("train", ["diffusion.objective.learn_log_variance=true", *small]))
    assert "objective.log_variance" in model.select_trainable(policy)
    assert "objective.log_variance" in model.state_dict()
