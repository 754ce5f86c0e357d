"""What camera control costs per training step, next to the bare backbone."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from einops import rearrange, repeat

from cami2v.batch import Cameras, ClipBatch
from cami2v.geometry.cameras import invert_pose
from cami2v.model import VideoDiffusion
from cami2v.training.engine import autocast
from cami2v.trajectories.presets import preset
from launch.build import build_model
from launch.compose import compose_config
from tools.benchmark_report import Report, Table, machine
from tools.rounds import Spread, take_turns

BARE = "bare backbone, all weights train"
ALL = "CamI2V, all weights train"
CAMERA = "CamI2V, only its own weights train"
CAMERA_OF = {"tiny": "cami2v", "dynamicrafter_256": "cami2v", "dynamicrafter_512": "cami2v_512"}
SIZE_OF = {"tiny": (64, 64), "dynamicrafter_256": (256, 256), "dynamicrafter_512": (320, 512)}


def measure_steps(backbone: str, device: torch.device, frames: int, rounds: int) -> Report:
    """Time training steps of the bare backbone and of CamI2V on it."""
    seconds, peaks = time_steps(backbone, device, frames, rounds)
    height, width = SIZE_OF[backbone]
    on_gpu = device.type == "cuda"
    rows = [
        [
            name,
            f"{1e3 * Spread.of(took).median:.1f}",
            Spread.of([mine / bare for mine, bare in zip(took, seconds[BARE], strict=True)]).text(2),
            *([f"{peaks[name]:.1f}"] if on_gpu else []),
        ]
        for name, took in seconds.items()
    ]
    where = machine(device.type)["hardware"] if on_gpu else f"{torch.get_num_threads()} threads"
    note = (
        f"backbone={backbone}, one clip of {frames} x {height} x {width}, {'bf16' if on_gpu else 'fp32'}, {where}, "
        f"{rounds} rounds; forward and backward: the optimizer's share depends on the engine and is left out."
    )
    columns = ["training step", "ms", "times the bare backbone", *(["peak GiB, both models loaded"] if on_gpu else [])]
    numbers = {"seconds": seconds, "peak_gib": peaks if on_gpu else None, "backbone": backbone, "frames": frames}
    table = Table(title="What camera control costs", columns=columns, rows=rows, notes=[note])
    return Report(name="steps", tables=[table], numbers=numbers, machine=machine(device.type))


def time_steps(
    backbone: str, device: torch.device, frames: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return seconds per round of wall-clock time, and peak GiB of GPU memory (0 on the CPU), by variant."""
    bare, controlled = (_model(backbone, camera, frames, device) for camera in ("none", CAMERA_OF[backbone]))
    batch = orbit_batch(frames, SIZE_OF[backbone]).to(device)
    peaks: dict[str, float] = {}

    def variant(name: str, model: VideoDiffusion, trainable: str) -> Callable[[int], None]:
        step = _step(model, trainable, batch)

        def run(_: int) -> None:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
                peaks[name] = max(peaks.get(name, 0.0), torch.cuda.max_memory_allocated() / 2**30)

        return run

    steps = {
        BARE: variant(BARE, bare, "all"),
        ALL: variant(ALL, controlled, "all"),
        CAMERA: variant(CAMERA, controlled, "camera"),
    }
    return take_turns(steps, rounds, clock=time.perf_counter), peaks


def orbit_batch(frames: int, size: tuple[int, int]) -> ClipBatch:
    """Make one clip of noise seen along an orbit: the cost of a step does not depend on what is in the picture."""
    height, width = size
    poses = invert_pose(preset("orbit_right", frames, 0.5))[:, :3]
    intrinsics = torch.tensor([0.9 * width, 0.9 * width, width / 2, height / 2], dtype=torch.float64)
    return ClipBatch(
        clip_ids=("orbit",),
        captions=("a room",),
        seeds=torch.tensor([1]),
        video=torch.rand((1, 3, frames, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1,
        cameras=Cameras(
            world_to_camera=rearrange(poses, "frames rows columns -> 1 frames rows columns"),
            intrinsics_pixels=repeat(intrinsics, "numbers -> 1 frames numbers", frames=frames),
            translation_scale=torch.ones((1, frames), dtype=torch.float64),
            height=height,
            width=width,
        ),
        frame_indices=torch.arange(frames)[None],
        frame_stride=torch.tensor([1]),
        frames_per_second=torch.tensor([8.0]),
    )


def _model(backbone: str, camera: str, frames: int, device: torch.device) -> VideoDiffusion:
    overrides = [f"backbone={backbone}", f"camera={camera}", f"data.frames={frames}"]
    return build_model(compose_config("train", overrides)).to(device).train()


def _step(model: VideoDiffusion, trainable: str, batch: ClipBatch) -> Callable[[], None]:
    precision = torch.bfloat16 if batch.video.is_cuda else None

    def step() -> None:
        model.select_trainable("all" if trainable == "all" else "camera")
        with autocast(precision, batch.video.device):
            loss = model(batch).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    return step
