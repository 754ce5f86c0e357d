"""The cost of a step, counted without running it, against steps that run."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cami2v.training.engine import EngineSettings, Precision
from cami2v.training.environment import EngineKind
from cami2v.training.memory_estimate import estimate_memory, parameter_dtype
from cami2v.training.step_cost import StepCost, step_cost
from launch.build import build_model, build_skeleton
from launch.compose import compose_config
from tools.orbit_clip import orbit_batch

FRAMES, SIZE = 2, (64, 64)


def counted(*overrides: str, trainable: str = "all", dtype: torch.dtype = torch.float32) -> StepCost:
    skeleton = build_skeleton(compose_config("train", [f"data.frames={FRAMES}", *overrides]))
    skeleton.select_trainable(trainable)
    autocast = None if dtype == torch.float32 else dtype
    return step_cost(skeleton, orbit_batch(FRAMES, SIZE), autocast_dtype=autocast, parameter_dtype=dtype)


def test_operations_equal_those_of_a_real_step() -> None:
    model = build_model(compose_config("train", [f"data.frames={FRAMES}", "camera=none"])).train()
    model.select_trainable("all")
    batch = orbit_batch(FRAMES, SIZE)
    with FlopCounterMode(display=False) as operations:
        model(batch).loss.backward()
    cost = counted("camera=none")
    assert cost.floating_point_operations == operations.get_total_flops()
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.trained_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_recomputation_costs_operations_and_saves_memory() -> None:
    plain = counted("backbone.activation_checkpointing=false", trainable="camera")
    recomputed = counted("backbone.activation_checkpointing=true", trainable="camera")
    assert recomputed.floating_point_operations > plain.floating_point_operations
    selective = counted("backbone.activation_checkpointing=selective", trainable="camera")
    assert selective.floating_point_operations < 1.01 * plain.floating_point_operations
    assert recomputed.working_bytes < 0.8 * selective.working_bytes < 0.7 * plain.working_bytes


def test_half_precision_needs_less_memory() -> None:
    assert counted("camera=none", dtype=torch.bfloat16).working_bytes < counted("camera=none").working_bytes


@pytest.mark.parametrize(
    ("kind", "precision", "weights", "optimizer", "working"),
    [
        ("single", "bf16", 4 * 1000, 8 * 100, 5000),
        ("ddp", "fp32", 4 * 1000, 8 * 100, 5000),
        ("zero1", "bf16", 2 * 1000, 12 * 100 / 4, 5000),
        ("zero2", "bf16", 2 * 1000, 12 * 100 / 4, 5000 - 2 * 75),
        ("zero3", "fp32", 4 * 1000 / 4, 12 * 100 / 4, 5000 - 4 * 75),
    ],
)
def test_engines_spread_what_they_say(
    kind: str, precision: str, weights: float, optimizer: float, working: float
) -> None:
    cost = StepCost(parameters=1000, trained_parameters=100, working_bytes=5000, floating_point_operations=1)
    engine = EngineSettings(
        kind=EngineKind(kind),
        precision=Precision(precision),
        allow_tf32=True,
        deterministic=False,
        timeout_minutes=1,
        compile=None,
        compile_mode=None,
        channels_last=False,
        prefetch=False,
    )
    estimate = estimate_memory(cost, engine, 4)
    assert (estimate.weights, estimate.optimizer, estimate.working) == (weights, optimizer, working)
    assert estimate.total == weights + optimizer + working
    assert parameter_dtype(engine) == (torch.bfloat16 if kind in ("zero1", "zero2") else torch.float32)
