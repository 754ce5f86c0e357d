"""A model as a folder of its own: pipeline.json, model.safetensors, README.md (docs/pipeline.md).

The folder is complete: it loads without the run, the released files or the experiment it came from, and offline.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cami2v.assembly import assemble_model
from cami2v.attention.choice import AttentionChoice
from cami2v.attention.core import choose_attention
from cami2v.checkpoints.safetensors_files import write_safetensors
from cami2v.file_hash import file_sha256
from cami2v.inference.model_facts import Defaults
from cami2v.inference.source import PARTS, PipelineSource
from cami2v.signature import TARGET, build, build_settings, convert

DESCRIPTION, WEIGHTS, CARD = "pipeline.json", "model.safetensors", "README.md"
FORMAT = 1
OWN = "cami2v."
"""Classes that a folder from somewhere else may name: none outside this library."""


def is_exported(folder: Path) -> bool:
    """Tell whether `export` wrote a folder."""
    return (folder / DESCRIPTION).is_file()


def export(source: PipelineSource, folder: Path, *, card: str) -> None:
    """Write a loaded model to a new folder; `card` is its README.md. The folder appears complete or not at all.

    Raises ValueError for a folder that exists.
    """
    if folder.exists():
        raise ValueError(f"{folder}: exists; choose another folder to export to")
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    weights = source.model.state_dict()
    write_safetensors(
        partial / WEIGHTS,
        {name: (value.dtype, tuple(value.shape)) for name, value in weights.items()},
        lambda name: weights[name].detach().cpu().contiguous(),
        metadata={"format": "pt", "cami2v": str(FORMAT)},
    )
    description = {
        "format": FORMAT,
        "config": _without_weights({key: source.config[key] for key in PARTS if source.config.get(key) is not None}),
        "defaults": dataclasses.asdict(source.defaults),
        "made_from": dict(source.identity),
        "weights_sha256": file_sha256(partial / WEIGHTS),
        "versions": {"torch": version("torch")},
    }
    (partial / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
    (partial / CARD).write_text(card)
    partial.replace(folder)


def load_exported(folder: Path) -> PipelineSource:
    """Load what `export` wrote.

    Raises ValueError in one line for a damaged folder, for weights that are not those it was written with, and for one
    that names classes outside this library.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text())
        found, config, defaults = description["format"], description["config"], description["defaults"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a description of a model ({error!r}); export it again") from error
    if found != FORMAT:
        raise ValueError(f"{path}: format {found}, this version reads {FORMAT}")
    foreign = [target for target in _targets(config) if not str(target).startswith(OWN)]
    if foreign:
        raise ValueError(f"{path}: names {foreign[0]}, which is not of {OWN.strip('.')}; not loaded")
    model = assemble_model(config, _build)
    choose_attention(model, convert(config.get("attention") or "auto", AttentionChoice, "attention"))
    _load(folder / WEIGHTS, model, description.get("weights_sha256"))
    return PipelineSource(
        model=model,
        sampler=_build(config["sampler"], "sampler"),
        config=config,
        defaults=build_settings(Defaults, defaults, f"{path}: defaults"),
        identity={
            "path": str(folder),
            "sha256": description.get("weights_sha256"),
            "made_from": description["made_from"],
        },
    )


def _load(path: Path, model: torch.nn.Module, sha256: str | None) -> None:
    if not path.is_file() or file_sha256(path) != sha256:
        raise ValueError(
            f"{path}: missing, or not the file that pipeline.json was written with; export or fetch it again"
        )
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path}: does not fit the model of pipeline.json ({' '.join(str(error).split())[:200]})"
        ) from error


def _build(node: Mapping[str, Any], key: str, **runtime: Any) -> Any:
    return build(node, key, runtime)


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if TARGET in node:
            yield node[TARGET]
        for inner in node.values():
            yield from _targets(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _targets(inner)


def _without_weights(node: Any) -> Any:
    """Leave out where parts read weights of their own: all of them are in the folder."""
    if not isinstance(node, Mapping):
        return node
    return {key: _without_weights(value) for key, value in node.items() if not (key == "weights" and TARGET in node)}
