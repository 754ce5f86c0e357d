"""From `checkpoint=` to a model that samples: a run folder, or released files with the experiment they belong to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from cami2v.attention.choice import AttentionChoice
from cami2v.checkpoints.archives import open_archive
from cami2v.checkpoints.integrity import hash_weights
from cami2v.checkpoints.load import find_weights, load_weights, weight_names
from cami2v.checkpoints.load_released import load_released, match_released
from cami2v.checkpoints.report import LoadReport, RefusedWeightsError
from cami2v.diffusion.sampler import Sampler
from cami2v.model import VideoDiffusion
from cami2v.training.run_folder import AVERAGE, WEIGHTS, RunFolder
from launch.build import build_model, build_skeleton
from launch.compose import compose_config, conf_folder, instantiate_part, plain, read_config
from launch.starting_point import is_run, paths_of, run_of, starting_point

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model for sampling comes from: the keys that sample.yaml and evaluate.yaml share."""

    checkpoint: str | Sequence[str]
    from_experiment: str | None
    overrides: Sequence[str]
    base: str | Sequence[str] | None
    load_report: Path | None
    attention: AttentionChoice | None
    weights: Literal["trained", "ema"]
    """Of a run: as trained, or their average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to sample, and what it is."""

    model: VideoDiffusion
    sampler: Sampler
    config: DictConfig
    """The training config: its own for a run, the experiment's for released files."""
    identity: dict[str, Any]


def load_model(source: Source, *, device: str | None = None) -> LoadedModel:
    """Build the model and load its weights, to `device`; None: CUDA where there is one.

    Raises ValueError for a checkpoint that does not exist, for released files without `experiment` (they do not know
    their config) and a run with one (it has its own), and for weights that do not fit the model.
    """
    paths = paths_of(source.checkpoint)
    absent = [path for path in paths if not path.exists()]
    if absent or not paths:
        name = absent[0] if absent else source.checkpoint
        raise ValueError(
            f"checkpoint={name}: does not exist; give a run folder of `cami2v train`, or released files with "
            "experiment=<name>"
        )
    run = len(paths) == 1 and is_run(paths[0])
    loaded = _load_run(paths[0], source) if run else _load_files(paths, source)
    loaded.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return loaded


def held_out_stride(config: DictConfig) -> int:
    """Return the frame stride of a model's held-out clips; where training drew it from a range, the range's middle."""
    if config.data.get("evaluation_frame_stride") is not None:
        return int(config.data.evaluation_frame_stride)
    stride = config.data.frame_stride
    return stride if isinstance(stride, int) else sum(stride) // 2


def held_out_data(run_config: DictConfig) -> dict[str, Any]:
    """Return a run's data settings; its stride is that of its validation clips, where they have their own.

    A cache holds training clips; what is judged comes from the videos.
    """
    data = plain(run_config.data, "data")
    data.pop("cache", None)
    stride = data.pop("evaluation_frame_stride", None)
    return data if stride is None else {**data, "frame_stride": stride}


def _load_run(path: Path, source: Source) -> LoadedModel:
    if source.from_experiment is not None or source.overrides:
        raise ValueError(
            f"experiment={source.from_experiment}: checkpoint={path} is a run and has a config of its own; leave "
            "experiment and overrides out"
        )
    run = run_of(path)
    if run is None:
        raise ValueError(
            f"checkpoint={path}: no run folder there (a folder with config.yaml, as `cami2v train` writes)"
        )
    weights = find_weights(path, AVERAGE if source.weights == "ema" else WEIGHTS)
    config = _with_attention(read_config(RunFolder(run).config), source)
    given = config.get("init_from") if source.base is None else source.base
    key = f"{run}/config.yaml: init_from" if source.base is None else "base"
    start = starting_point(given, key=key, resuming=True)
    start.check(config)
    model = build_model(config)
    report = start.load(model, trained=weight_names(weights))
    identity: dict[str, Any] = {"path": str(path), "weights": weights.name, "sha256": hash_weights(weights)}
    if report is not None:
        _tell(report, source.load_report)
        identity["base_sha256"] = [file.sha256 for file in report.files]
    load_weights(weights, model)
    return LoadedModel(
        model=model,
        sampler=instantiate_part(config.sampler, "sampler"),
        config=config,
        identity=identity,
    )


def _load_files(paths: Sequence[Path], source: Source) -> LoadedModel:
    names = ",".join(str(path) for path in paths)
    for path in paths:
        open_archive(path)
    if source.from_experiment is None:
        known = ", ".join(sorted(file.stem for file in (conf_folder() / "experiment").glob("*.yaml")))
        raise ValueError(
            f"checkpoint={names}: no run folder but released weights, which do not know their model; add "
            f"experiment=<name> (one of: {known})"
        )
    if source.weights == "ema":
        raise ValueError(f"weights=ema: checkpoint={names} are released files; only runs have an average")
    if source.base is not None:
        raise ValueError(
            f"base={source.base}: belongs to runs; give released files together, checkpoint=<base>,<delta>"
        )
    config = compose_config("train", [f"experiment={source.from_experiment}", *source.overrides])
    _with_attention(config, source)
    try:
        match_released(paths, build_skeleton(config))
        model = build_model(config)
        report = load_released(paths, model)
    except RefusedWeightsError as error:
        if source.load_report is not None:
            _write(error.report, source.load_report)
        raise
    _tell(report, source.load_report)
    files = [{"path": str(file.path), "role": file.role, "sha256": file.sha256} for file in report.files]
    return LoadedModel(
        model=model,
        sampler=instantiate_part(config.sampler, "sampler"),
        config=config,
        identity={
            "path": names, "experiment": source.from_experiment, "overrides": list(source.overrides), "files": files,
        },
    )  # fmt: skip


def _with_attention(config: DictConfig, source: Source) -> DictConfig:
    if source.attention is not None:
        config.attention = source.attention
    return config


def _tell(report: LoadReport, target: Path | None) -> None:
    logger.info("%s", report.summary())
    if target is not None:
        _write(report, target)


def _write(report: LoadReport, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(report.text())
