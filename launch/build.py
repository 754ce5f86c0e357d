"""From a config to the model it describes."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from cami2v.assembly import assemble_model
from cami2v.attention.choice import AttentionChoice
from cami2v.attention.core import choose_attention
from cami2v.model import VideoDiffusion
from cami2v.signature import convert
from launch.compose import instantiate_part


def build_model(config: DictConfig) -> VideoDiffusion:
    """Build the model a training config describes; the same config and seed give the same initial weights."""
    model = assemble_model(config, instantiate_part)
    choose_attention(model, attention_choice(config))
    return model


def attention_choice(config: DictConfig) -> AttentionChoice:
    """Return `attention`; raises ValueError for another value. Runs from before the key existed chose automatically."""
    return convert(config.get("attention") or "auto", AttentionChoice, "attention")


def build_skeleton(config: DictConfig) -> VideoDiffusion:
    """Build the model without memory, on the meta device: names, shapes and the true schedule, in seconds."""
    with torch.device("meta"):
        model = build_model(config)
    model.schedule = instantiate_part(config.diffusion.schedule, "diffusion.schedule")
    return model
