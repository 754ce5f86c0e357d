"""From a config to the objects it describes: the model, and a finished run's model and sampler."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from cami2v.attention.choice import AttentionChoice
from cami2v.attention.core import choose_attention
from cami2v.checkpoints.load import load_weights
from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.prediction import Prediction
from cami2v.model import VideoDiffusion
from cami2v.training.run_folder import RunFolder
from launch.compose import instantiate_part, read_config
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
        )
    choose_attention(model, attention_choice(config))
    return model


def attention_choice(config: DictConfig) -> AttentionChoice:
    """Return `attention`; raises ValueError for another value. Runs from before the key existed chose automatically."""
    return convert(config.get("attention") or "auto", AttentionChoice, "attention")


def load_run(source: Path, *, attention: str | None = None) -> tuple[VideoDiffusion, DDIMSampler, DictConfig]:
    """Rebuild the model of a run from its own config and latest trained weights, ready to sample.

    `source` is a run folder or one of its checkpoint folders. Raises ValueError where either holds no run, and for
    weights that do not belong to the config. `attention` replaces the run's own choice of backend.
    """
    run = next((folder for folder in (source, *source.parents[:2]) if RunFolder(folder).config.is_file()), None)
    if run is None:
        raise ValueError(
            f"checkpoint={source}: no run folder there (a folder with config.yaml, as `cami2v train` writes)"
        )
    config = read_config(RunFolder(run).config)
    if attention is not None:
        config.attention = attention
    model = build_model(config)
    load_weights(source, model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), instantiate_part(config.sampler, "sampler"), config
