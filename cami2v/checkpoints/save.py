"""Gather what a checkpoint consists of; cami2v/checkpoints/write.py makes files of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from cami2v.training.ema import WeightAverage
from cami2v.training.engine import Engine
from cami2v.training.loss_scale import loss_scale
from cami2v.training.random_states import random_states
from cami2v.training.run_folder import AVERAGE, FORMAT, OPTIMIZER, RANDOM_STATES, WEIGHTS
from cami2v.training.state import TrainState
from cami2v.training.trained_state import MOMENTS, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a run's numbers come from; stored with its weights."""

    config_sha256: str
    manifest_sha256: str
    scale_policy: str
    git_revision: str
    base_fingerprint: str
    """`fingerprint` of everything that is not trained."""
    seed: int
    global_batch_size: int
    micro_batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointContent:
    """Everything a checkpoint holds, in host memory; nothing in it depends on how many processes trained."""

    step: int
    files: dict[str, dict[str, Tensor]]
    """Tensors of every safetensors file."""
    metadata: dict[str, dict[str, str]]
    record: dict[str, Any]


def gather_content(
    engine: Engine, state: TrainState, provenance: Provenance, average: WeightAverage | None
) -> CheckpointContent | None:
    """Copy weights, optimizer, average and random states to the main process; None elsewhere (collective)."""
    trained = engine.trained_state
    weights = _on_main(engine, trained.read(Part.WEIGHT))
    moments: dict[str, Tensor] = {}
    for part in MOMENTS:
        moments |= {f"{part.value}/{name}": value for name, value in _on_main(engine, trained.read(part)).items()}
    moments |= {f"step/{name}": torch.tensor(step) for name, step in trained.steps().items()}
    averages = _on_main(engine, average.read()) if average is not None else None
    own = {f"{engine.rank}/{name}": value for name, value in random_states().items()}
    randomness = engine.gather_objects([own])
    if not engine.is_main:
        return None
    labels = {"format": f"cami2v-{FORMAT}", "step": str(state.step)}
    labels |= {name: str(value) for name, value in dataclasses.asdict(provenance).items()}
    files = {
        WEIGHTS: weights,
        OPTIMIZER: moments,
        RANDOM_STATES: {name: value for states in randomness for name, value in states.items()},
    }
    metadata = {WEIGHTS: labels}
    if averages is not None and average is not None:
        files[AVERAGE] = averages
        metadata[AVERAGE] = labels | {"ema_decay": str(average.settings.decay)}
    return CheckpointContent(
        step=state.step, files=files, metadata=metadata, record=_record(engine, state, provenance, average)
    )


def _on_main(engine: Engine, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Copy tensors to host memory on the main process; the others only take part in gathering them."""
    kept = {}
    for name, value in tensors:
        if engine.is_main:
            kept[name] = value.to("cpu", copy=True).contiguous()
    return kept


def _record(engine: Engine, state: TrainState, provenance: Provenance, average: WeightAverage | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "state": dataclasses.asdict(state),
        "engine": engine.settings.kind.value,
        "precision": engine.settings.precision.value,
        "world_size": engine.world_size,
        "loss_scale": loss_scale(engine.loss_scaler),
        "ema_decay": average.settings.decay if average is not None else None,
        "trainable": sorted(engine.trainable),
        "provenance": dataclasses.asdict(provenance),
        "versions": {package: _version(package) for package in ("cami2v", "torch", "accelerate", "deepspeed")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
