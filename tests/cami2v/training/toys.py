"""A model, a data stream and a program that are as small as training allows, with the interfaces of the real ones."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from cami2v.batch import Cameras, ClipBatch, StepOutput
from cami2v.checkpoints import write
from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.integrity import intact_checkpoint, read_record
from cami2v.checkpoints.resume import check_resumable
from cami2v.checkpoints.save import Provenance
from cami2v.checkpoints.write import Retention
from cami2v.draws import Draws
from cami2v.training.bad_steps import BadStepSettings
from cami2v.training.callbacks.bad_steps import BadStepGuard
from cami2v.training.callbacks.base import Callback, TrainingStoppedError
from cami2v.training.callbacks.checkpoint import SaveCheckpoints
from cami2v.training.callbacks.ema import UpdateAverage
from cami2v.training.callbacks.log import LoggingSettings, MetricsLog
from cami2v.training.callbacks.meters import GradientNorms, LossByTimestep, Meter, Throughput
from cami2v.training.ema import EmaSettings
from cami2v.training.engine import EngineKind, EngineSettings, Precision
from cami2v.training.optimizer import OptimizerSettings
from cami2v.training.preemption import StopRequests
from cami2v.training.run_folder import RunFolder, resolve_resume
from cami2v.training.trainer import Trainer, TrainerSettings
from launch.processes import die_with_parent

FRAMES, SIZE = 2, 4
SEED = 7


class ToyDiffusion(nn.Module):
    """A frozen encoder, a trainable denoiser with dropout; noise from the samples' own seeds."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.frozen = nn.Linear(3 * SIZE * SIZE, 16)
            self.hidden = nn.Linear(16, 64)
            self.dropout = nn.Dropout(dropout)
            self.out = nn.Linear(64, 16)
        self.frozen.requires_grad_(False)

    def forward(self, batch: ClipBatch) -> StepOutput:
        draws = Draws(batch.seeds, device=batch.video.device)
        latents = self.frozen(batch.video.transpose(1, 2).flatten(2).to(self.frozen.weight.dtype))
        noise = draws.normal("noise", tuple(latents.shape[1:])).to(latents.dtype)
        predicted = self.out(self.dropout(torch.nn.functional.silu(self.hidden(latents + noise))))
        loss = (predicted.float() - noise.float()).square().mean((1, 2))
        return StepOutput(loss=loss.mean(), loss_per_sample=loss, timesteps=draws.integers("timestep", 10))

    def generate(self, batch: ClipBatch, sampler: object) -> torch.Tensor:
        latents = self.frozen(batch.video.transpose(1, 2).flatten(2).to(self.frozen.weight.dtype))
        return batch.video * self.out(self.hidden(latents)).float().mean().sigmoid()


def toy_clip(number: int) -> ClipBatch:
    """Build sample `number` of the stream; the same for every caller."""
    generator = torch.Generator().manual_seed(1000 + number)
    world_to_camera = torch.eye(4, dtype=torch.float64)[None, None, :3].repeat(1, FRAMES, 1, 1)
    world_to_camera[0, :, 2, 3] = torch.arange(FRAMES)
    return ClipBatch(
        clip_ids=(f"clip{number:04d}",),
        captions=("a room",),
        seeds=torch.tensor([number * 7919 + 13]),
        video=torch.rand(1, 3, FRAMES, SIZE, SIZE, generator=generator) * 2 - 1,
        cameras=Cameras(
            world_to_camera=world_to_camera,
            intrinsics_pixels=torch.ones(1, FRAMES, 4, dtype=torch.float64),
            translation_scale=torch.ones(1, FRAMES, dtype=torch.float64),
            height=SIZE,
            width=SIZE,
        ),
        frame_indices=torch.arange(FRAMES)[None],
        frame_stride=torch.ones(1, dtype=torch.int64),
        frames_per_second=torch.full((1,), 8.0),
    )


def join_clips(clips: list[ClipBatch]) -> ClipBatch:
    """Collate single-clip batches."""

    def cat(name: str, owner: str | None = None) -> torch.Tensor:
        return torch.cat([getattr(getattr(clip, owner) if owner else clip, name) for clip in clips])

    return ClipBatch(
        clip_ids=sum((clip.clip_ids for clip in clips), ()),
        captions=sum((clip.captions for clip in clips), ()),
        cameras=Cameras(
            **{n: cat(n, "cameras") for n in ("world_to_camera", "intrinsics_pixels", "translation_scale")},
            height=SIZE,
            width=SIZE,
        ),
        **{n: cat(n) for n in ("seeds", "video", "frame_indices", "frame_stride", "frames_per_second")},
    )


class ToyStream:
    """The loader's contract: sample number n is the same for every world size."""

    def __init__(self, poison: int | None = None) -> None:
        self.poison = poison

    def stream(
        self, *, micro_batch_size: int, rank: int, world_size: int, seed: int, start: int
    ) -> Iterator[ClipBatch]:
        position = start + rank * micro_batch_size
        while True:
            batch = join_clips([toy_clip(position + i) for i in range(micro_batch_size)])
            if self.poison is not None and position <= self.poison < position + micro_batch_size:
                batch = dataclasses.replace(batch, video=batch.video * float("nan"))
            yield batch
            position += world_size * micro_batch_size


def trainer_settings(**changes: object) -> TrainerSettings:
    """Return small settings: global batch 4 in micro-batches of 1."""
    values: dict = {
        "max_steps": 6, "global_batch_size": 4, "micro_batch_size": 1, "gradient_clip_norm": 0.5, "trainable": "all",
        "checkpoint_every_steps": 3, "keep_last_checkpoints": 2, "keep_every_steps": 0, "background_checkpoints": False,
        "log_every_steps": 1, "validate_every_steps": 0, "validation_clips": 0, "validation_split": "test",
    }  # fmt: skip
    return TrainerSettings(**(values | changes))


def engine_settings(kind: str, precision: str = "fp32") -> EngineSettings:
    """Return settings of an engine without CUDA options."""
    return EngineSettings(
        kind=EngineKind(kind),
        precision=Precision(precision),
        allow_tf32=False,
        deterministic=False,
        timeout_minutes=5,
        compile=None,
        compile_mode=None,
        channels_last=False,
        prefetch=True,
    )


OPTIMIZER = OptimizerSettings(
    learning_rate=1e-2, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=1e-2, schedule="cosine", warmup_steps=2
)
BAD_STEPS = BadStepSettings(bad_step="stop", bad_steps_in_a_row=3, loss_explosion=100.0)
LOGGING = LoggingSettings(
    wandb="off", project="test", entity=None, wandb_failure="offline", tensorboard=False, timestep_buckets=0,
    gradient_norms_every_steps=0, count_flops=False, peak_tflops=None,
)  # fmt: skip


class KillDuringSave(Callback):
    """Kill this process with SIGKILL in the middle of writing the checkpoint of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, run, report) -> None:
        if report.step == self.step:
            save = write.save_file

            def save_and_die(*arguments, **options) -> None:
                save(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)

            write.save_file = save_and_die


def train(
    folder: Path,
    kind: str,
    precision: str = "fp32",
    *,
    resume: str | None = None,
    kill_at: int | None = None,
    stream: ToyStream | None = None,
    logging: LoggingSettings = LOGGING,
    dropout: float = 0.1,
    model: nn.Module | None = None,
    callbacks: tuple[Callback, ...] = (),
    ema_decay: float | None = None,
    stop_requests: StopRequests | None = None,
    bad_steps: BadStepSettings = BAD_STEPS,
    measured: bool = False,
    **changes: object,
) -> Trainer:
    """Train the toy model, or another one, as launch/train.py trains the real one."""
    settings = trainer_settings(**changes)
    run, checkpoint = resolve_resume(resume, RunFolder(folder))
    model = model or ToyDiffusion(dropout)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    provenance = Provenance(
        config_sha256="c", manifest_sha256="m", scale_policy="relative", git_revision="g", seed=SEED,
        base_fingerprint=fingerprint(model, trainable), global_batch_size=settings.global_batch_size,
        micro_batch_size=settings.micro_batch_size,
    )  # fmt: skip
    if checkpoint is not None:
        checkpoint = intact_checkpoint(run, checkpoint, fall_back=resume == "auto")
        expected = {"seed": SEED, "global_batch_size": settings.global_batch_size}
        check_resumable(read_record(checkpoint), checkpoint, expected)
    log = MetricsLog(every_steps=1, settings=logging, config={}, meters=all_meters() if measured else ())
    own: list[Callback] = [
        BadStepGuard(bad_steps),
        UpdateAverage(),
        log,
        *([KillDuringSave(kill_at)] if kill_at is not None else []),
        SaveCheckpoints(
            every_steps=settings.checkpoint_every_steps,
            retention=Retention(last=settings.keep_last_checkpoints, every_steps=settings.keep_every_steps),
            background=settings.background_checkpoints,
        ),
    ]
    trainer = Trainer(
        model=model, loader=stream or ToyStream(), settings=settings, engine=engine_settings(kind, precision),
        optimizer=OPTIMIZER, folder=run, provenance=provenance, callbacks=[*own, *callbacks], resume_from=checkpoint,
        ema=EmaSettings(decay=ema_decay, warmup=True, in_validation=False), stop_requests=stop_requests,
        bad_steps=bad_steps,
    )  # fmt: skip
    trainer.fit()
    return trainer


def all_meters() -> list[Meter]:
    """Return every meter, gradients at even steps."""
    return [
        LossByTimestep(timesteps=10, buckets=3),
        GradientNorms(every_steps=2),
        Throughput(operations=10**6, accumulation_steps=2, peak=1e12),
    ]


def forget_engine() -> None:
    """Let another engine be built in this process: Accelerate keeps its state in class attributes."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run_cases(run: Callable[..., object]) -> None:
    """Run a list of cases in this process; a case that a guard stops leaves its message in stopped-<rank>.txt."""
    for case in json.loads(sys.argv[1]):
        folder = Path(case.pop("folder"))
        try:
            run(folder, **case)
        except TrainingStoppedError as error:
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"stopped-{rank}.txt").write_text(str(error))
        forget_engine()
    leave_group()


def leave_group() -> None:
    """Leave the group, as a program does at its end: gloo may abort an interpreter that ends before."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def main() -> None:
    """Run a list of training cases, one after the other, in this process: toys.py '[{"folder": ..., "kind": ...}]'."""
    die_with_parent()
    for case in json.loads(sys.argv[1]):
        case["folder"] = Path(case["folder"])
        train(**case)
        forget_engine()
    leave_group()


if __name__ == "__main__":
    main()
