"""The dynamic loss scale of fp16 as numbers that PyTorch's and DeepSpeed's scaler both understand."""

from __future__ import annotations

from typing import Any

import torch


def loss_scale(scaler: Any) -> dict[str, float] | None:
    """Return scale and steps since it last changed; None without a scaler. `hysteresis` is DeepSpeed's alone."""
    if scaler is None:
        return None
    if isinstance(scaler, torch.amp.GradScaler):
        return {"scale": float(scaler.get_scale()), "clean_steps": int(scaler.state_dict()["_growth_tracker"])}
    return {
        "scale": float(scaler.cur_scale),
        # DeepSpeed starts at iteration 0 with the last overflow at -1.
        "clean_steps": int(scaler.cur_iter - scaler.last_overflow_iter - 1),
        "hysteresis": int(scaler.cur_hysteresis),
    }


def restore_loss_scale(scaler: Any, saved: dict[str, float] | None) -> None:
    """Go on with a saved scale. Nothing happens where either side has none: fp16 then starts as a new run does."""
    if scaler is None or saved is None:
        return
    if isinstance(scaler, torch.amp.GradScaler):
        state = scaler.state_dict() | {"scale": saved["scale"], "_growth_tracker": int(saved["clean_steps"])}
        scaler.load_state_dict(state)
        return
    scaler.cur_scale = saved["scale"]
    scaler.last_overflow_iter = -1
    scaler.cur_iter = int(saved["clean_steps"])
    scaler.cur_hysteresis = int(saved.get("hysteresis", scaler.delayed_shift))
