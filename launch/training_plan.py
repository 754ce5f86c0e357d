"""A training run before anything is built: its settings read, and checked against each other, machine and data."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from cami2v.attention.choice import check_training
from cami2v.camera_control.liveness import GuardSettings
from cami2v.checkpoints.integrity import intact_checkpoint, read_record
from cami2v.checkpoints.resume import check_resumable
from cami2v.condition_frame import ConditionFrame
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.signature import TARGET, locate
from cami2v.training import environment
from cami2v.training.bad_steps import BadStepSettings
from cami2v.training.callbacks.log import LoggingSettings
from cami2v.training.ema import EmaSettings
from cami2v.training.engine import EngineSettings
from cami2v.training.optimizer import OptimizerSettings
from cami2v.training.run_folder import RunFolder, resolve_resume
from cami2v.training.trainer import TrainerSettings
from data_pipeline.loader import ClipLoader
from launch.build import attention_choice
from launch.compose import check_parts, instantiate_part, read_config, settings
from launch.processes import ClusterSettings, process_count
from launch.starting_point import StartingPoint, starting_point
from launch.telemetry import check_camera_errors, check_meters

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run whose settings fit each other, this machine and the data; nothing is built or written yet."""

    trainer: TrainerSettings
    engine: EngineSettings
    optimizer: OptimizerSettings
    ema: EmaSettings
    logging: LoggingSettings
    guards: GuardSettings
    faults: BadStepSettings
    processes: int
    folder: RunFolder
    resume_from: Path | None
    start: StartingPoint
    loader: ClipLoader
    validation: ClipLoader | None


def prepare(config: DictConfig, *, elsewhere: bool = False) -> Plan:
    """Check a config as a whole, but for this machine's devices where it will run `elsewhere`.

    Raises ValueError in one line for what would stop the run later.
    """
    processes = process_count(settings(config.cluster, ClusterSettings, "cluster"))
    trainer = settings(config.trainer, TrainerSettings, "trainer")
    engine = settings(config.engine, EngineSettings, "engine")
    optimizer = settings(config.optimizer, OptimizerSettings, "optimizer")
    ema = settings(config.ema, EmaSettings, "ema")
    logs = settings(config.logging, LoggingSettings, "logging")
    guards = settings(config.guards, GuardSettings, "guards")
    faults = settings(config.faults, BadStepSettings, "faults")
    if not elsewhere:
        engine.check_machine()
        check_training(attention_choice(config))
    environment.check_environment(
        engine.kind,
        engine.precision.value,
        trainer.gradient_clip_norm,
        accumulation_steps=trainer.accumulation_steps(processes),
        processes=processes,
    )
    check_meters(logs, trainer)
    check_camera_errors(config, trainer)
    check_parts(config)
    folder, resume_from = resolve_resume(config.resume, RunFolder(Path(config.paths.runs) / config.name))
    folder.check_writable()
    loader = _loader(config)
    loader.validate(processes)
    _check_scale(config, loader)
    if resume_from is not None:
        resume_from = intact_checkpoint(folder, resume_from, fall_back=config.resume == "auto")
        expected = {
            "seed": config.seed,
            "manifest_sha256": loader.manifest.input_sha256,
            "global_batch_size": trainer.global_batch_size,
        }
        check_resumable(read_record(resume_from), resume_from, expected)
    start = _start(config, folder, resume_from)
    start.check(config)
    return Plan(
        trainer=trainer, engine=engine, optimizer=optimizer, ema=ema, logging=logs, guards=guards, faults=faults,
        processes=processes,
        folder=folder, resume_from=resume_from, start=start, loader=loader,
        validation=_validation_loader(config, trainer),
    )  # fmt: skip


def _loader(config: DictConfig) -> ClipLoader:
    """Return the loader of training; one that reads a cache must know which frame the model is shown."""
    shown = ConditionFrame(random=config.diffusion.random_condition_frame)
    loader: ClipLoader = instantiate_part(
        config.data, "data", **({"condition_frame": shown} if config.data.get("cache") else {})
    )
    return loader


def _check_scale(config: DictConfig, loader: ClipLoader) -> None:
    method = locate(config.camera[TARGET], f"camera.{TARGET}")
    policy = loader.settings.scale_policy
    if getattr(method, "needs_metric_scale", False) and policy != ScalePolicy.METRIC:
        raise ValueError(
            f"data.scale_policy={policy.value}: {method.__name__} is trained in metres; set data.scale_policy=metric "
            "and give shards whose clips have a metric scale (docs/metric-scale.md), or use camera=cami2v"
        )
    # Null means the set's own policy; the run is continued, sampled and evaluated with what it was.
    config.data.scale_policy = policy.value


def _validation_loader(config: DictConfig, trainer: TrainerSettings) -> ClipLoader | None:
    if not (trainer.validate_every_steps and trainer.validation_clips):
        return None
    node = config.data.copy()
    node.split = trainer.validation_split
    node.num_workers = 0
    if node.get("cache") is not None:
        node.cache = None  # videos are sampled and shown, so they are needed
    try:
        loader: ClipLoader = instantiate_part(node, "data")
    except ValueError as error:
        raise ValueError(f"trainer.validation_split={trainer.validation_split}: {error}") from error
    if trainer.validation_clips > loader.num_samples:
        logger.info(
            "trainer.validation_clips=%d, but split %s has %d: validating on all of them",
            trainer.validation_clips, trainer.validation_split, loader.num_samples,
        )  # fmt: skip
    return loader


def _start(config: DictConfig, folder: RunFolder, resume_from: Path | None) -> StartingPoint:
    """Find what the weights start from; when resuming, what the run started from unless it has moved."""
    given = config.init_from
    if given is None and resume_from is not None and folder.config.is_file():
        given = read_config(folder.config).get("init_from")
    start = starting_point(given, key="init_from", resuming=resume_from is not None)
    if config.init_from is not None and start.trained and config.resume not in (None, "auto"):
        raise ValueError(
            "init_from and resume=<run> are both set: resume continues everything, init_from takes weights only; "
            "keep one"
        )
    return start
