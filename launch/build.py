"""From a config to the model it describes."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from cami2v.attention.choice import AttentionChoice
from cami2v.attention.core import choose_attention
from cami2v.diffusion.objective import TrainingObjective
from cami2v.diffusion.prediction import Prediction
from cami2v.model import VideoDiffusion
from launch.compose import instantiate_part
from launch.signature import convert


def build_model(config: DictConfig) -> VideoDiffusion:
    """Build the model a training config describes; the same config and seed give the same initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        first_stage = instantiate_part(config.first_stage, "first_stage")
        camera = instantiate_part(config.camera, "camera")
        backbone = instantiate_part(
            config.backbone, "backbone", latent_channels=first_stage.latent_channels, adapter_for=camera.adapter_for
        )
        model = VideoDiffusion(
            first_stage=first_stage,
            text_encoder=instantiate_part(config.encoders.text, "encoders.text"),
            image_encoder=instantiate_part(config.encoders.image, "encoders.image"),
            image_projector=instantiate_part(config.encoders.projector, "encoders.projector"),
            camera=camera,
            backbone=backbone,
            schedule=instantiate_part(config.diffusion.schedule, "diffusion.schedule"),
            prediction=Prediction(config.diffusion.prediction),
            frame_rate=config.diffusion.frame_rate,
            condition_drop_probability=config.diffusion.condition_drop_probability,
            random_condition_frame=config.diffusion.random_condition_frame,
            depth=instantiate_part(config.depth, "depth") if config.get("depth") else None,
            objective=_objective(config),
        )
    choose_attention(model, attention_choice(config))
    return model


def _objective(config: DictConfig) -> TrainingObjective | None:
    # Runs from before the key existed minimised the mean squared error, which is what none means.
    if not config.diffusion.get("objective"):
        return None
    return instantiate_part(config.diffusion.objective, "diffusion.objective")


def attention_choice(config: DictConfig) -> AttentionChoice:
    """Return `attention`; raises ValueError for another value. Runs from before the key existed chose automatically."""
    return convert(config.get("attention") or "auto", AttentionChoice, "attention")


def build_skeleton(config: DictConfig) -> VideoDiffusion:
    """Build the model without memory, on the meta device: names, shapes and the true schedule, in seconds."""
    with torch.device("meta"):
        model = build_model(config)
    model.schedule = instantiate_part(config.diffusion.schedule, "diffusion.schedule")
    return model
