"""A run folder as `cami2v train` leaves it, without the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from cami2v.training.run_folder import WEIGHTS, RunFolder
from launch.build import build_model
from launch.compose import as_yaml, compose_config
from tests.tiny_models import randomise


def untrained_run(path: Path, overrides: Sequence[str]) -> Path:
    """Write config.yaml and a checkpoint with the initial camera weights: a camera that changes nothing."""
    return _run(path, overrides, trainable="camera", random=False)


def random_run(path: Path, overrides: Sequence[str]) -> Path:
    """Write config.yaml and a checkpoint with random weights: nonsense, but it depends on its camera."""
    return _run(path, overrides, trainable="all", random=True)


def _run(path: Path, overrides: Sequence[str], *, trainable: Literal["camera", "all"], random: bool) -> Path:
    config = compose_config("train", list(overrides))
    model = build_model(config)
    chosen = set(model.select_trainable(trainable))
    if random:
        randomise(model.backbone)
        randomise(model.camera)
    run = RunFolder(path)
    checkpoint = run.checkpoint(1)
    checkpoint.mkdir(parents=True)
    run.config.write_text(as_yaml(config))
    save_file({n: value.detach() for n, value in model.named_parameters() if n in chosen}, checkpoint / WEIGHTS)
    run.set_latest(checkpoint)
    return run.path
