"""A run folder as `cami2v train` leaves it, without the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from cami2v.training.run_folder import WEIGHTS, RunFolder
from launch.build import build_model
from launch.compose import as_yaml, compose_config


def untrained_run(path: Path, overrides: Sequence[str]) -> Path:
    """Write config.yaml and a checkpoint with the initial camera weights."""
    config = compose_config("train", list(overrides))
    model = build_model(config)
    trainable = set(model.select_trainable("camera"))
    run = RunFolder(path)
    checkpoint = run.checkpoint(1)
    checkpoint.mkdir(parents=True)
    run.config.write_text(as_yaml(config))
    save_file({n: value.detach() for n, value in model.named_parameters() if n in trainable}, checkpoint / WEIGHTS)
    run.set_latest(checkpoint)
    return run.path
