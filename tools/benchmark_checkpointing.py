"""What activation checkpointing costs in time and saves in memory: measured here, and counted at full size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cami2v.training.step_cost import StepCost, step_cost
from launch.build import build_skeleton
from launch.compose import compose_config
from tools.benchmark_report import Report, Table, machine
from tools.machine_ceilings import clock
from tools.orbit_clip import orbit_batch
from tools.peak_memory import peak_bytes, reset_peak, returning_process
from tools.rounds import Spread, take_turns
from tools.step_parts import Denoising

CHOICES = ("false", "selective", "true")
TRAINED = {"camera": "the camera's", "all": "all"}
COUNTED = ("cami2v_256", "cami2v_512_masked")
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointingCase:
    """Which steps are measured, and which experiments counted."""

    backbone: str
    camera: str
    device: str
    frames: int
    size: tuple[int, int]
    rounds: int
    counted: Sequence[str] = COUNTED
    trained: Sequence[str] = tuple(TRAINED)


def measure_checkpointing(case: CheckpointingCase) -> Report:
    """Time every choice in turns, take its peak in a process of its own, and count full-size experiments' steps."""
    steps = {
        (trained, choice): _step(case, trained, choice).training_step for trained in case.trained for choice in CHOICES
    }
    device = torch.device(case.device)
    turns = {" ".join(name): lambda _, step=step: step() for name, step in steps.items()}
    seconds = take_turns(turns, case.rounds, clock=lambda: clock(device))
    peaks = {}
    for trained, choice in steps:
        with returning_process() as process:
            peaks[f"{trained} {choice}"] = process.submit(measure_peak, case, trained, choice).result()
    counted = {name: {trained: _counted(name, trained) for trained in case.trained} for name in case.counted}
    return Report(
        name="checkpointing",
        tables=[_measured_table(case, seconds, peaks), *([_counted_table(counted)] if counted else [])],
        numbers={
            "case": dataclasses.asdict(case),
            "seconds": seconds,
            "peaks": peaks,
            "counted": {
                name: {
                    trained: {choice: dataclasses.asdict(cost) for choice, cost in costs.items()}
                    for trained, costs in by_trained.items()
                }
                for name, by_trained in counted.items()
            },
        },
        machine=machine(case.device),
    )


def measure_peak(case: CheckpointingCase, trained: str, choice: str) -> int:
    """Return the bytes above weights and inputs of a training step in this process, which must be new."""
    device = torch.device(case.device)
    step = _step(case, trained, choice)
    step.training_step()  # libraries load their kernels
    before = reset_peak(device)
    step.training_step()
    return peak_bytes(device) - before


def _step(case: CheckpointingCase, trained: str, choice: str) -> Denoising:
    return dataclasses.replace(
        Denoising.of(
            case.backbone, case.camera, case.frames, torch.device(case.device),
            torch.bfloat16 if case.device == "cuda" else None, size=case.size,
            overrides=[f"backbone.activation_checkpointing={choice}"],
        ),
        trainable=trained,
    )  # fmt: skip


def _counted(experiment: str, trained: str) -> dict[str, StepCost]:
    costs = {}
    for choice in CHOICES:
        overrides = [f"experiment={experiment}", f"backbone.activation_checkpointing={choice}"]
        config = compose_config("train", overrides)
        height, width = config.data.resolution
        skeleton = build_skeleton(config)
        skeleton.select_trainable(trained)
        costs[choice] = step_cost(
            skeleton, orbit_batch(config.data.frames, (height, width)), autocast_dtype=torch.bfloat16,
            parameter_dtype=torch.float32,
        )  # fmt: skip
    return costs


def _measured_table(case: CheckpointingCase, seconds: dict[str, list[float]], peaks: dict[str, int]) -> Table:
    rows = []
    for name, took in seconds.items():
        trained, choice = name.split()
        plain = f"{trained} false"
        times = Spread.of([mine / base for mine, base in zip(took, seconds[plain], strict=True)])
        rows.append(
            [
                f"{TRAINED[trained]}: {choice}", f"{1e3 * Spread.of(took).median:.0f}", times.text(2),
                f"{peaks[name] / MIB:.0f}", f"{peaks[name] / peaks[plain]:.2f}",
            ]
        )  # fmt: skip
    height, width = case.size
    where = "bf16" if case.device == "cuda" else "fp32, one thread, seconds of the CPU, peaks of resident memory"
    return Table(
        title="Activation checkpointing, measured",
        columns=["weights that train: choice", "ms", "times false", "peak MiB above the weights", "share of false"],
        rows=rows,
        notes=[
            f"backbone={case.backbone}, camera={case.camera}, one clip of {case.frames} x {height} x {width} with "
            f"cached latents and tokens, {where}; forward and backward, {case.rounds} rounds, peaks once, each in a "
            "new process. Gradients are in the peak."
        ],
    )


def _counted_table(counted: dict[str, dict[str, dict[str, StepCost]]]) -> Table:
    rows = [
        [
            f"{name}, {TRAINED[trained]}: {choice}", f"{cost.working_bytes / GIB:.1f}",
            f"{cost.working_bytes / costs['false'].working_bytes:.2f}",
            f"{cost.floating_point_operations / 1e12:.1f}",
            f"{cost.floating_point_operations / costs['false'].floating_point_operations:.2f}",
        ]
        for name, by_trained in counted.items()
        for trained, costs in by_trained.items()
        for choice, cost in costs.items()
    ]  # fmt: skip
    return Table(
        title="Activation checkpointing, counted at full size (nothing run)",
        columns=["experiment, weights that train: choice", "working GiB", "share of false", "TFLOP", "times false"],
        rows=rows,
        notes=[
            "One clip, bf16 autocast, a whole step from the pixels: activations, temporaries and gradients besides "
            "weights and optimizer, as `cami2v train --dry-run` counts them (docs/preflight.md)."
        ],
    )
