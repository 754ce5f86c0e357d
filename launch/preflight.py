"""What `cami2v train --dry-run` says: what will run, what it needs, and what stands in its way. Writes nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig

from cami2v.batch import ClipBatch
from cami2v.file_hash import file_sha256
from cami2v.model import VideoDiffusion
from cami2v.training.memory_estimate import FULL, estimate_memory, parameter_dtype
from cami2v.training.step_cost import StepCost, step_cost
from launch.build import build_skeleton
from launch.training_plan import Plan

Line = tuple[str, str]
"""What the line is about, and what it says."""


def dry_run(config: DictConfig, plan: Plan) -> None:
    """Print the plan of a training run. Raises ValueError that lists every problem found, once all is printed."""
    problems: list[str] = []
    for topic, text in _lines(config, plan, problems):
        print(f"{topic:<12}{text}", flush=True)
    if problems:
        raise ValueError(f"dry run: {len(problems)} problem{'s' * (len(problems) > 1)}: {'; '.join(problems)}")
    print("dry run: nothing stands in the way; nothing was written")


def _lines(config: DictConfig, plan: Plan, problems: list[str]) -> Iterator[Line]:
    yield "run", _run(plan)
    skeleton = build_skeleton(config)
    trained = skeleton.select_trainable(plan.trainer.trainable)
    yield "trains", _trains(skeleton, trained, plan.trainer.trainable)
    yield from _weights(plan)
    yield "batch", _batch(plan)
    yield "engine", _engine(plan)
    yield "data", _data(plan)
    batch = _first_batch(plan)
    yield "reading", batch[1]
    precision = plan.engine.precision
    cost = step_cost(
        skeleton, batch[0], autocast_dtype=precision.autocast_dtype, parameter_dtype=parameter_dtype(plan.engine)
    )
    yield (
        "step",
        (
            f"{cost.floating_point_operations / 1e12:.3g} TFLOP per process and micro-batch, forward and backward, "
            "attention as if unmasked"
        ),
    )
    yield "memory", _memory(plan, cost, problems)
    yield "disk", _disk(plan, cost, problems)


def _run(plan: Plan) -> str:
    if plan.resume_from is not None:
        return f"{plan.folder.path}: continues from {plan.resume_from.name} to step {plan.trainer.max_steps}"
    return f"{plan.folder.path}: new, {plan.trainer.max_steps} steps"


def _trains(model: VideoDiffusion, names: list[str], policy: str | list[str]) -> str:
    every = sum(parameter.numel() for parameter in model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{count / 1e6:.2f} M of {every / 1e6:.2f} M parameters ({len(names)} tensors, trainer.trainable={policy})"


def _weights(plan: Plan) -> Iterator[Line]:
    files = (*plan.start.released, *plan.start.trained)
    if not files and plan.resume_from is None:
        yield "weights", "none: everything starts untrained (init_from=<released base> or a run)"
    for path in files:
        yield "weights", f"{path}: {path.stat().st_size / 1e9:.2f} GB, sha256 {file_sha256(path)}"


def _batch(plan: Plan) -> str:
    accumulation = plan.trainer.accumulation_steps(plan.processes)
    return (
        f"{plan.trainer.global_batch_size} clips per optimizer step = {plan.processes} processes"
        f" x {plan.trainer.micro_batch_size} per forward pass x {accumulation} accumulated"
    )


def _engine(plan: Plan) -> str:
    clip = plan.trainer.gradient_clip_norm
    return (
        f"{plan.engine.kind.value}, {plan.engine.precision.value}, gradients "
        f"{'not clipped' if clip is None else f'clipped at norm {clip:g}'}, learning rate "
        f"{plan.optimizer.learning_rate:g} ({plan.optimizer.schedule}, {plan.optimizer.warmup_steps} steps of warm-up)"
    )


def _data(plan: Plan) -> str:
    loader = plan.loader
    whole = loader.num_samples / plan.trainer.global_batch_size
    passes = plan.trainer.max_steps / whole
    readers = f"{plan.processes} x {max(loader.num_workers, 1)} readers"
    return (
        f"{loader.store.name} split {loader.split_name}: {loader.num_samples} clips in {len(loader.split.shards)} "
        f"shards for {readers}; {whole:.4g} steps per epoch, {passes:.3g} epochs in all"
    )


def _first_batch(plan: Plan) -> tuple[ClipBatch, str]:
    """Read what every worker of process 0 reads first; return a batch of pixels and what it took."""
    workers = max(plan.loader.num_workers, 1)
    started = time.perf_counter()
    size = plan.trainer.micro_batch_size
    request: dict[str, int] = {"micro_batch_size": size, "rank": 0, "world_size": plan.processes, "seed": 0, "start": 0}
    stream = plan.loader.stream(**request)
    batches = [next(stream) for _ in range(workers)]
    skipped = plan.loader.take_skipped()
    text = (
        f"{workers} micro-batches, one per worker, in {time.perf_counter() - started:.1f} s: "
        f"{', '.join(clip for batch in batches for clip in batch.clip_ids[:2])}"
    )
    if skipped:
        text += f"; {len(skipped)} clips had to be replaced ({skipped[0].message})"
    first = batches[0]
    if not isinstance(first, ClipBatch):
        # The step is described with all towers; with a cache it takes a little less.
        first = next(plan.loader.without_cache().stream(**request))
        assert isinstance(first, ClipBatch), "read from the videos"
    return first, text


def _memory(plan: Plan, cost: StepCost, problems: list[str]) -> str:
    needed = estimate_memory(cost, plan.engine, plan.processes)
    text = (
        f"about {_gib(needed.total)} per process: weights {_gib(needed.weights)}, optimizer {_gib(needed.optimizer)}, "
        f"activations and gradients {_gib(needed.working)} (docs/preflight.md says how good this is)"
    )
    if not torch.cuda.is_available():
        return text
    available = torch.cuda.get_device_properties(0).total_memory
    if needed.total > available:
        problems.append(
            f"memory: about {_gib(needed.total)} needed, the GPU has {_gib(available)}; use engine=zero2 or zero3, "
            "more processes, backbone.activation_checkpointing=true or a smaller trainer.micro_batch_size"
        )
    return f"{text}; the GPU has {_gib(available)}"


def _disk(plan: Plan, cost: StepCost, problems: list[str]) -> str:
    """Compare the checkpoints that will lie side by side, one unfinished one included, with the free space."""
    folder = _existing(plan.folder.path)
    if not os.access(folder, os.W_OK):
        problems.append(f"{folder}: not writable; choose another paths.runs")
    # Weights, and two moments with DeepSpeed's master copy.
    each = cost.trained_parameters * FULL * (4 if plan.engine.kind.zero_stage else 3)
    kept = plan.trainer.keep_last_checkpoints + 1
    free = shutil.disk_usage(folder).free
    if each * kept > free:
        problems.append(
            f"disk: {kept} checkpoints of {_gib(each)} do not fit into {_gib(free)} free under {folder}; free some, "
            f"lower trainer.keep_last_checkpoints={plan.trainer.keep_last_checkpoints} or choose another paths.runs"
        )
    return f"{kept} checkpoints of about {_gib(each)}; {_gib(free)} free under {folder}"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _gib(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
