"""What a training run is asked to tell beside its loss (docs/telemetry.md)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig

from cami2v.batch import ClipBatch
from cami2v.model import VideoDiffusion
from cami2v.training import environment
from cami2v.training.callbacks.judge import CameraErrorSettings, SampleJudge
from cami2v.training.callbacks.log import LoggingSettings
from cami2v.training.callbacks.meters import GradientNorms, LossByTimestep, Meter, Throughput
from cami2v.training.memory_estimate import parameter_dtype
from cami2v.training.peak_flops import peak_flops
from cami2v.training.step_cost import step_cost
from cami2v.training.trainer import TrainerSettings
from launch.build import build_skeleton
from launch.compose import instantiate_part, settings

if TYPE_CHECKING:
    from launch.training_plan import Plan

logger = logging.getLogger(__name__)


def meters(config: DictConfig, plan: Plan, model: VideoDiffusion) -> list[Meter]:
    """Return the meters that `logging` asks for."""
    chosen: list[Meter] = []
    if plan.logging.timestep_buckets:
        timesteps = model.schedule.timesteps
        chosen.append(LossByTimestep(timesteps=timesteps, buckets=min(plan.logging.timestep_buckets, timesteps)))
    if plan.logging.gradient_norms_every_steps:
        chosen.append(GradientNorms(every_steps=plan.logging.gradient_norms_every_steps))
    if plan.logging.count_flops and environment.rank() == 0:
        chosen.append(_throughput(config, plan))
    return chosen


def camera_errors(config: DictConfig, plan: Plan) -> SampleJudge | None:
    """Return what estimates the cameras of validation samples, or None where nobody asked."""
    asked = check_camera_errors(config, plan.trainer)
    if not asked.every_validations:
        return None
    # Imported here: it brings pycolmap, which a training process otherwise does without.
    from cami2v.training.callbacks.camera_error import CameraErrors

    estimator = instantiate_part(config.camera_error.estimator, "camera_error.estimator")
    return CameraErrors(settings=asked, estimator=estimator, validate_every_steps=plan.trainer.validate_every_steps)


def check_camera_errors(config: DictConfig, trainer: TrainerSettings) -> CameraErrorSettings:
    """Return the settings. Raises ValueError where they are wrong, or there are no validations to measure at."""
    asked = settings(config.camera_error, CameraErrorSettings, "camera_error")
    if asked.every_validations and not (trainer.validate_every_steps and trainer.validation_clips):
        raise ValueError(
            f"camera_error.every_validations={asked.every_validations}: there are no validations; set "
            "trainer.validate_every_steps and trainer.validation_clips, or camera_error=none"
        )
    return asked


def check_meters(logs: LoggingSettings, trainer: TrainerSettings) -> None:
    """Raise ValueError where gradient norms would be measured at steps that have no row."""
    every, rows = logs.gradient_norms_every_steps, trainer.log_every_steps
    if every % rows:
        raise ValueError(
            f"logging.gradient_norms_every_steps={every}: expected a multiple of trainer.log_every_steps={rows}, or 0"
        )


def _throughput(config: DictConfig, plan: Plan) -> Throughput:
    """Count what a step computes; only this process's rows are written, so only it counts."""
    started = time.perf_counter()
    skeleton = build_skeleton(config)
    skeleton.select_trainable(plan.trainer.trainable)
    (clip,) = plan.loader.without_cache().glance(count=1, seed=config.seed)
    assert isinstance(clip, ClipBatch), "read from the videos"
    cost = step_cost(
        skeleton,
        clip,
        autocast_dtype=plan.engine.precision.autocast_dtype,
        parameter_dtype=parameter_dtype(plan.engine),
    )
    operations = cost.floating_point_operations * plan.trainer.micro_batch_size
    given = plan.logging.peak_tflops
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    peak = given * 1e12 if given is not None else peak_flops(device, plan.engine)
    logger.info(
        "%.4g TFLOP per micro-batch, counted in %.0f s; %s",
        operations / 1e12, time.perf_counter() - started,
        f"{device} peaks at {peak / 1e12:g} TFLOP/s" if peak else f"the peak of {device} is not known, so mfu is null "
        "(logging.peak_tflops)",
    )  # fmt: skip
    steps = plan.trainer.accumulation_steps(plan.processes)
    return Throughput(operations=operations, accumulation_steps=steps, peak=peak)
