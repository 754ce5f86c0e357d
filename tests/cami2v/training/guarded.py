"""The real model, very small, in training and watched by the camera guard; a program, as engines need processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from cami2v.batch import ClipBatch
from cami2v.camera_control.liveness import GuardSettings
from cami2v.model import VideoDiffusion
from cami2v.training.callbacks.guards import CameraAliveGuard
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.trainer import Trainer
from launch.build import build_model
from launch.compose import compose_config
from tests.cami2v.test_model import FRAMES, SMALL, clips, one
from tests.cami2v.training.toys import LOGGING, ToyStream, run_cases, train
from tests.tiny_models import randomise

SMALLEST = [*SMALL, "backbone.attention_downsamples=[2]", "backbone.initial_attention=false"]


def stored_clips() -> list[ClipBatch]:
    """Return two clips whose cameras go different ways."""
    pair = clips(2)
    pair.cameras.world_to_camera[1, :, 2, 3] = -torch.linspace(0, 1, FRAMES, dtype=torch.float64)
    return [one(pair, 0), one(pair, 1)]


class Clips(ToyStream):
    """The same small clips for every world size."""

    def stream(
        self, *, micro_batch_size: int, rank: int, world_size: int, seed: int, start: int
    ) -> Iterator[ClipBatch]:
        """Yield single clips in turn."""
        assert micro_batch_size == 1
        position, stored = start + rank, stored_clips()
        while True:
            yield stored[position % 2]
            position += world_size


def model(*, pretrained: bool) -> VideoDiffusion:
    """Build a model with its camera as initialised, on a backbone that predicts something or on an untrained one."""
    built = build_model(compose_config("train", SMALLEST))
    initial = {name: weight.clone() for name, weight in built.named_parameters() if "camera." in name}
    if pretrained:
        randomise(built.backbone)
    with torch.no_grad():
        for name, weight in initial.items():
            built.get_parameter(name).copy_(weight)
    built.select_trainable("camera")
    return built


def train_guarded(
    folder: Path,
    kind: str,
    *,
    guard: Literal["error", "warn"] | None = "error",
    pretrained: bool = True,
    judged_at: int = 2,
    **more: Any,
) -> Trainer:
    """Train as toys.train does; without `guard` nothing watches."""
    callbacks = []
    if guard is not None:
        callbacks.append(
            CameraAliveGuard(
                clips=stored_clips(),
                guards=GuardSettings(camera_alive=guard, camera_alive_step=judged_at),
                validate_every_steps=0,
                checkpoint_every_steps=1,
                log=MetricsLog(every_steps=1, settings=LOGGING, config={}),
            )
        )
    settings: dict[str, Any] = {"max_steps": 3, "checkpoint_every_steps": 2, "global_batch_size": 2, **more}
    return train(
        folder, kind, model=model(pretrained=pretrained), stream=Clips(), callbacks=tuple(callbacks), **settings
    )


if __name__ == "__main__":
    run_cases(train_guarded)
