"""`cami2v train`; the same program under `torchrun -m launch.train` and `accelerate launch -m launch.train`."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig

from cami2v.batch import ClipBatch
from cami2v.camera_control.liveness import reason_to_skip
from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.load import weight_names
from cami2v.checkpoints.report import LoadReport
from cami2v.checkpoints.save import Provenance
from cami2v.checkpoints.write import Retention
from cami2v.model import VideoDiffusion
from cami2v.training import environment
from cami2v.training.callbacks.bad_steps import BadStepGuard
from cami2v.training.callbacks.base import Callback, TrainingStoppedError
from cami2v.training.callbacks.checkpoint import SaveCheckpoints
from cami2v.training.callbacks.describe import DescribeRun
from cami2v.training.callbacks.ema import UpdateAverage
from cami2v.training.callbacks.guards import (
    CameraAliveGuard,
    DeadGradientGuard,
)
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.callbacks.progress import ProgressBar
from cami2v.training.callbacks.skipped import SkippedClips
from cami2v.training.callbacks.validate import Validate
from cami2v.training.engine import prepare_model
from cami2v.training.preemption import StopRequest, StopRequests
from cami2v.training.run_folder import WEIGHTS, replace_text
from cami2v.training.run_lock import hold
from cami2v.training.trainer import Trainer
from launch.build import build_model
from launch.compose import as_yaml, entry, instantiate_part, plain, read_config
from launch.config_diff import config_changes, leaves
from launch.encoders import check_cache
from launch.errors import disk_refusal
from launch.first_failure import wait_for_first_failure
from launch.preflight import dry_run
from launch.processes import die_with_parent, launched, start_processes
from launch.telemetry import camera_errors, meters
from launch.training_plan import Plan, prepare

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Check everything that can be checked cheaply, then train, in this process or in several."""
    try:
        plan = prepare(config)
        if config.dry_run:
            if environment.rank() == 0:
                dry_run(config, plan)
        elif plan.processes > 1 and not launched():
            start_processes("launch.train", plan.processes)
        else:
            train(config, plan)
    except (ValueError, TrainingStoppedError) as error:
        if environment.rank() > 0:
            # Process 0 finds the same and says it; the launcher then ends this one before it repeats the line.
            time.sleep(5)
        if isinstance(error, ValueError):
            raise
        _end(str(error), error)
    except RuntimeError as error:
        line = wait_for_first_failure(error)
        if line is None:
            raise
        _end(line, error)
    except OSError as error:
        line = disk_refusal(error)
        if line is None:
            raise
        _end(line, error)


def _end(line: str, error: Exception) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    raise SystemExit(1) from error


def train(config: DictConfig, plan: Plan) -> None:
    """Build model, callbacks and trainer, and train, in one of `plan.processes` processes."""
    die_with_parent()
    _quiet_logs()
    is_main = environment.rank() == 0
    with hold(plan.folder.path) if is_main else contextlib.nullcontext():
        if is_main:
            for answered in (plan.folder.preempt, plan.folder.preempted):
                answered.unlink(missing_ok=True)
        requests = StopRequests(plan.folder.preempt if is_main else None)
        with requests.listening():
            stop = _train(config, plan, requests)
    if stop:
        raise SystemExit(stop.exit_code)


def _train(config: DictConfig, plan: Plan, requests: StopRequests) -> StopRequest:
    model = build_model(config)
    trainable = model.select_trainable(plan.trainer.trainable)
    config.init_from = plan.start.recorded()
    report = _load_start(plan, model)
    if plan.loader.cache is not None:
        check_cache(config, model, plan.loader.cache, trainable)
    prepare_model(model, model.backbone, plan.engine)
    trainer = Trainer(
        model=model, loader=plan.loader, settings=plan.trainer, engine=plan.engine, optimizer=plan.optimizer,
        folder=plan.folder, provenance=_provenance(config, plan, model, trainable), resume_from=plan.resume_from,
        callbacks=_callbacks(config, plan, model), ema=plan.ema, stop_requests=requests, bad_steps=plan.faults,
    )  # fmt: skip
    if trainer.engine.is_main:
        _announce(config, plan, trainer.engine.trained_parameters)
        replace_text(plan.folder.config, as_yaml(config))
        if report is not None:
            replace_text(plan.folder.loaded_weights, report.text())
    state = trainer.fit()
    if trainer.stop is StopRequest.PREEMPT and trainer.engine.is_main:
        plan.folder.preempt.unlink(missing_ok=True)
        plan.folder.preempted.touch()
    reason = {"NONE": "finished", "PREEMPT": "asked to leave, saved", "INTERRUPT": "interrupted, saved"}
    how = "" if not trainer.stop else "; resume=auto continues"
    logger.info("%s at step %d: %s%s", reason[trainer.stop.name], state.step, plan.folder.path, how)
    trainer.engine.close()
    return trainer.stop


def _callbacks(config: DictConfig, plan: Plan, model: VideoDiffusion) -> list[Callback]:
    """Return the callbacks in order: nothing is logged or saved of a step that a guard refuses."""
    log = MetricsLog(
        every_steps=plan.trainer.log_every_steps, settings=plan.logging, config=plain(config),
        meters=meters(config, plan, model),
    )  # fmt: skip
    clips = _validation_clips(config, plan)
    callbacks: list[Callback] = [
        SkippedClips(stream=plan.loader, log=log),
        BadStepGuard(plan.faults),
        DeadGradientGuard(),
        *_camera_guard(config, plan, model, clips, log),
        UpdateAverage(),
        log,
        DescribeRun(changes=config_changes(config), log=log),
        ProgressBar(),
        SaveCheckpoints(
            every_steps=plan.trainer.checkpoint_every_steps,
            retention=Retention(last=plan.trainer.keep_last_checkpoints, every_steps=plan.trainer.keep_every_steps),
            background=plan.trainer.background_checkpoints,
        ),
    ]
    if clips:
        sampler = instantiate_part(config.sampler, "sampler")
        every = plan.trainer.validate_every_steps
        average = plan.ema.in_validation
        judge = camera_errors(config, plan)
        callbacks.append(
            Validate(clips=clips, sampler=sampler, every_steps=every, log=log, use_average=average, judge=judge)
        )
    return callbacks


def _camera_guard(
    config: DictConfig, plan: Plan, model: VideoDiffusion, clips: list[ClipBatch], log: MetricsLog
) -> list[Callback]:
    """Return the guard of the camera's effect, or nothing where it is off or there is no camera to look for."""
    count = min(2, plan.loader.num_samples)
    clips = clips or list(plan.loader.glance(count=count, seed=config.seed))
    reason = reason_to_skip(model, clips[0], plan.guards)
    if reason is not None:
        logger.info("the camera is not checked: %s", reason)
        return []
    return [
        CameraAliveGuard(
            clips=clips,
            guards=plan.guards,
            validate_every_steps=plan.trainer.validate_every_steps,
            checkpoint_every_steps=plan.trainer.checkpoint_every_steps,
            log=log,
        )
    ]


def _validation_clips(config: DictConfig, plan: Plan) -> list[ClipBatch]:
    if plan.validation is None:
        return []
    count = min(plan.trainer.validation_clips, plan.validation.num_samples)
    return list(plan.validation.fixed(count=count, rank=0, world_size=1, seed=config.seed))


def _load_start(plan: Plan, model: VideoDiffusion) -> LoadReport | None:
    """Load what the weights start from, but what the checkpoint to resume brings anyway."""
    restored = weight_names(plan.resume_from / WEIGHTS) if plan.resume_from is not None else ()
    report = plan.start.load(model, trained=restored, hashes=environment.rank() == 0)
    if report is not None:
        logger.info("%s", report.summary())
    for path in plan.start.trained:
        logger.info("weights from %s", path)
    return report


def _provenance(config: DictConfig, plan: Plan, model: VideoDiffusion, trainable: list[str]) -> Provenance:
    return Provenance(
        config_sha256=hashlib.sha256(as_yaml(config).encode()).hexdigest(),
        manifest_sha256=plan.loader.manifest.input_sha256,
        scale_policy=str(plan.loader.settings.scale_policy),
        git_revision=_git_revision(),
        base_fingerprint=fingerprint(model, set(trainable)),
        seed=config.seed,
        global_batch_size=plan.trainer.global_batch_size,
        micro_batch_size=plan.trainer.micro_batch_size,
    )


def _announce(config: DictConfig, plan: Plan, trained: int) -> None:
    """Say what starts, and on a resume which settings differ from the run's last ones."""
    start = "new run" if plan.resume_from is None else f"continuing from {plan.resume_from.name}"
    logger.info(
        "%s: %s, %s %s x %d, %d clips, %.2f M trained parameters, global batch %d",
        plan.folder.path, start, plan.engine.kind.value, plan.engine.precision.value, plan.processes,
        plan.loader.num_samples, trained / 1e6, plan.trainer.global_batch_size,
    )  # fmt: skip
    if plan.resume_from is not None and plan.folder.config.is_file():
        before, now = leaves(plain(read_config(plan.folder.config))), leaves(plain(config))
        changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        for key in [key for key in changed if key not in ("resume", "init_from")]:
            logger.warning("%s changes with this resume: %s -> %s", key, before.get(key), now.get(key))


def _quiet_logs() -> None:
    """Let process 0 speak, and libraries only when something is wrong."""
    if environment.rank() > 0:
        logging.getLogger().setLevel(logging.WARNING)
    for library in ("accelerate", "DeepSpeed"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


main = entry("train")(run)

if __name__ == "__main__":
    main()
