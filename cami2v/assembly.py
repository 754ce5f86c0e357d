"""From the parts a config names to the model they form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from cami2v.diffusion.prediction import Prediction
from cami2v.model import VideoDiffusion

PartBuilder = Callable[..., Any]
"""(node with a `_target_`, its key in the config, **arguments that the program adds) -> the part."""


def assemble_model(config: Mapping[str, Any], build_part: PartBuilder) -> VideoDiffusion:
    """Build the model a config describes; the same config and seed give the same initial weights."""
    encoders, diffusion = config["encoders"], config["diffusion"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        first_stage = build_part(config["first_stage"], "first_stage")
        camera = build_part(config["camera"], "camera")
        backbone = build_part(
            config["backbone"],
            "backbone",
            latent_channels=first_stage.latent_channels,
            adapter_for=camera.adapter_for,
        )
        # Runs from before the key existed minimised the mean squared error, which is what no objective means.
        objective, depth = diffusion.get("objective"), config.get("depth")
        return VideoDiffusion(
            first_stage=first_stage,
            text_encoder=build_part(encoders["text"], "encoders.text"),
            image_encoder=build_part(encoders["image"], "encoders.image"),
            image_projector=build_part(encoders["projector"], "encoders.projector"),
            camera=camera,
            backbone=backbone,
            schedule=build_part(diffusion["schedule"], "diffusion.schedule"),
            prediction=Prediction(diffusion["prediction"]),
            frame_rate=diffusion["frame_rate"],
            condition_drop_probability=diffusion["condition_drop_probability"],
            random_condition_frame=diffusion["random_condition_frame"],
            depth=build_part(depth, "depth") if depth else None,
            objective=build_part(objective, "diffusion.objective") if objective else None,
        )
