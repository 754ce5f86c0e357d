"""Tiny models as their configs initialise them, for who has no weights yet: they run everywhere and know nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from cami2v.inference.exported import export, is_exported, load_exported
from cami2v.inference.source import PipelineSource
from launch.build import build_model
from launch.compose import compose_config, instantiate_part
from launch.load_model import LoadedModel
from launch.load_pipeline import source_of

METHODS = ("cami2v", "cameractrl", "motionctrl")
SMALL = (
    "data.frames=8", "data.resolution=[64,64]", "backbone.widths=[32,64]", "backbone.head_width=16",
    "backbone.attention_downsamples=[2]", "sampler.steps=8",
)  # fmt: skip
POSE_ENCODER = ("camera.pose_encoder.num_heads=2", "camera.pose_encoder.residual_blocks=1")
CARD = "# Untrained\n\nA tiny model with the weights it begins with. `cami2v app` made it; it knows nothing.\n"


def untrained_source(method: str, folder: Path) -> PipelineSource:
    """Load an untrained model of a method from its exported folder, which is made where there is none that loads.

    The folder makes its videos repeatable: `cami2v sample --replay` finds the weights there. Raises ValueError for an
    unknown method.
    """
    if is_exported(folder):
        try:
            return load_exported(folder)
        except ValueError:
            # Of another version of the library.
            shutil.rmtree(folder)
    overrides = [f"camera={method}", *SMALL, *(() if method == "motionctrl" else POSE_ENCODER)]
    config = compose_config("train", overrides)
    loaded = LoadedModel(
        model=build_model(config),
        sampler=instantiate_part(config.sampler, "sampler"),
        config=config,
        identity={"path": "untrained", "overrides": overrides},
    )
    export(source_of(loaded), folder, card=CARD)
    return load_exported(folder)
