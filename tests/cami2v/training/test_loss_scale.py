"""fp16 itself needs a GPU; its scalers are plain Python."""

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

from cami2v.training.loss_scale import loss_scale, restore_loss_scale


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed asks for the rank, to log on the first one only; here it has started no processes."""
    monkeypatch.setattr("deepspeed.runtime.fp16.loss_scaler.dist.get_rank", lambda: 0)


def deepspeed_scaler() -> DynamicLossScaler:
    return DynamicLossScaler(
        init_scale=2**16, scale_window=5, min_scale=1, delayed_shift=2, consecutive_hysteresis=False, dtype=torch.half
    )


def torch_scaler() -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=5)
    scaler.scale(torch.ones(1))  # which creates its state
    return scaler


def take(scaler: DynamicLossScaler, overflows: str) -> list[float]:
    """Return the scale after each step; `x` is an overflow."""
    scales = []
    for step in overflows:
        scaler.update_scale(step == "x")
        scales.append(scaler.cur_scale)
    return scales


@pytest.mark.parametrize("before", ["", "...", "x", "x.x..", "......x"])
def test_deepspeeds_scale_goes_on_as_if_nothing_had_happened(before: str) -> None:
    original, restored = deepspeed_scaler(), deepspeed_scaler()
    take(original, before)
    restore_loss_scale(restored, loss_scale(original))
    after = "....x.......x..x......"
    assert take(restored, after) == take(original, after)


def test_a_scale_moves_between_deepspeed_and_pytorch() -> None:
    original, other, back = deepspeed_scaler(), torch_scaler(), deepspeed_scaler()
    take(original, "x.x..")
    restore_loss_scale(other, loss_scale(original))
    assert other.get_scale() == original.cur_scale
    restore_loss_scale(back, loss_scale(other))
    assert take(back, "......") == take(original, "......")


def test_without_a_scale_on_either_side_nothing_happens() -> None:
    scaler = deepspeed_scaler()
    restore_loss_scale(scaler, None)
    restore_loss_scale(None, {"scale": 1.0, "clean_steps": 0})
    assert scaler.cur_scale == 2**16
    assert loss_scale(None) is None
