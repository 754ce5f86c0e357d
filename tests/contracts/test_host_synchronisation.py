"""Between the draws of a step and its loss nothing is read back from the device: the host may run ahead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cami2v.attention.core import choose_attention
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.camera_control.cameractrl import CameraCtrl
from cami2v.camera_control.motionctrl import MotionCtrl
from cami2v.draws import Draws
from tests.tiny_models import (
    randomise,
    tiny_cameras,
    tiny_cami2v,
    tiny_conditioning,
    tiny_latents,
    tiny_pose_encoder,
    tiny_unet,
)

WAITING = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique_dim", "_unique2"}
"""Operators whose result, or its size, the host has to know."""
METHODS = {
    "motionctrl": lambda: MotionCtrl(trace_scale=1.0),
    "cameractrl": lambda: CameraCtrl(pose_encoder=tiny_pose_encoder(), trace_scale=1.0),
    "cami2v": tiny_cami2v,
    "cami2v with options": lambda: tiny_cami2v(keys="condition_frame", insertion="temporal_attention"),
}


class Waits(TorchDispatchMode):
    """Lists the operators that a GPU's host would wait for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.seen: list[str] = []
        for name in ("tolist", "cpu", "numpy"):  # of a tensor on the CPU these reach no operator
            monkeypatch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    def _counted(self, name: str, original: Any) -> Any:
        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(name)
            return original(tensor, *args, **kwargs)

        return method


@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    control = METHODS[method]()
    unet = tiny_unet(control.adapter_for)
    randomise(unet)
    latents, frame, draws = tiny_latents(), torch.zeros(2, dtype=torch.int64), Draws(torch.tensor([1, 2]))
    inputs = torch.tensor([10, 900]), tiny_conditioning(latents)
    with Waits(monkeypatch) as waits:
        condition = control.encode(tiny_cameras(), condition_frame=frame, draws=draws)
        unet(latents, *inputs, condition).square().mean().backward()
    assert waits.seen == []


def test_block_lists_are_built_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    control = tiny_cami2v()
    unet = tiny_unet(control.adapter_for)
    choose_attention(unet, "flex")
    with Waits(monkeypatch) as waits:
        condition = control.encode(
            tiny_cameras(), condition_frame=torch.zeros(2, dtype=torch.int64), draws=Draws(torch.tensor([1, 2]))
        )
    assert waits.seen == ["tolist"], "of the seeds, before anything is on a device"
    masks = list(condition.masks.levels.values())
    assert masks
    assert all(isinstance(mask, EpipolarBands) and "flex/4" in mask.prepared for mask in masks)


def test_waiting_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with Waits(monkeypatch) as waits:
        numbers = torch.arange(3)
        numbers.tolist()
        numbers[0].item()
        if torch.equal(numbers, numbers):
            numbers.nonzero()
    assert waits.seen == ["tolist", "_local_scalar_dense", "equal", "nonzero"]
