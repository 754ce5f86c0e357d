"""Read trained weights: strict, key by key."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.training.run_folder import AVERAGE, WEIGHTS, RunFolder


def load_weights(source: Path, model: nn.Module) -> dict[str, str]:
    """Copy trained weights into a model and return their metadata (`init_from`, sampling, evaluation).

    `source` is a trainable.safetensors, a checkpoint folder or a run folder (its latest checkpoint). Raises ValueError
    for names or shapes that the model does not have, and where the model's other weights are not the base that the
    file was trained on.
    """
    path = find_weights(source)
    weights = read_weights(path)
    metadata = read_metadata(path)
    parameters = dict(model.named_parameters())
    unknown = sorted(weights.keys() - parameters.keys())
    if unknown:
        raise ValueError(
            f"{path}: holds {len(unknown)} weights that this model lacks (first: {unknown[0]}); choose the backbone "
            "and camera of the run that wrote it"
        )
    for name, value in weights.items():
        if value.shape != parameters[name].shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(value.shape)}, this model's has {tuple(parameters[name].shape)}; "
                "choose the backbone and camera of the run that wrote it"
            )
    base = fingerprint(model, weights.keys())
    if metadata.get("base_fingerprint", base) != base:
        raise ValueError(
            f"{path}: was trained on other frozen weights than this model has ({len(parameters) - len(weights)} "
            "parameters are not in the file); use the same base, backbone, camera, encoders and seed"
        )
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
    return metadata


def find_weights(source: Path, name: str = WEIGHTS) -> Path:
    """Return the weights file that a file, checkpoint folder or run folder stands for.

    `name` is WEIGHTS or AVERAGE. Raises ValueError where there is none, or where `source` is a file of another name.
    """
    if source.is_file() and (source.name == name or name == WEIGHTS):
        return source
    latest = RunFolder(source).latest() if source.is_dir() else None
    for candidate in (source / name, latest / name if latest else source / name):
        if candidate.is_file():
            return candidate
    if name == AVERAGE and source.exists():
        raise ValueError(
            f"{source}: weights=ema, but there is no {AVERAGE} (runs have one with ema=default); use weights=trained"
        )
    raise ValueError(
        f"{source}: {'holds no trained weights' if source.is_dir() else 'does not exist'}; give a {WEIGHTS}, a "
        "checkpoint folder or a run folder"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU. Raises ValueError where it is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error


def weight_names(path: Path) -> set[str]:
    """Read the names in a safetensors file. Raises ValueError where it is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file. Raises ValueError where the file is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
