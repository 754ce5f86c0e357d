"""What camera control costs per training step, and how fast the loader feeds it.

Variants take turns within every round, so that a machine that slows down slows all of them down; the table shows
medians, and each variant's ratio to the bare backbone of the same round. A step is forward and backward; the
optimizer's share depends on the engine and is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from einops import rearrange, repeat

from cami2v.batch import Cameras, ClipBatch
from cami2v.geometry.cameras import invert_pose
from cami2v.geometry.trajectories import preset
from cami2v.model import VideoDiffusion
from cami2v.training.engine import autocast
from data_pipeline.loader import ClipLoader
from launch.build import build_model
from launch.compose import compose_config, instantiate_part, quote
from launch.pack import run as pack

CAMERA_OF = {"tiny": "cami2v", "dynamicrafter_256": "cami2v", "dynamicrafter_512": "cami2v_512"}
SIZE_OF = {"tiny": (64, 64), "dynamicrafter_256": (256, 256), "dynamicrafter_512": (320, 512)}
SMALL_WORLD = (
    "source=synthetic",
    "world.rooms=1",
    "world.sources={train:2,validation:1,test:1}",
    "world.clips_per_source=1",
    "world.frames_per_clip=16",
    "world.supersampling=1",
    "pack.min_shards=2",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one variant took."""

    variant: str
    median_seconds: float
    ratio_to_bare: float
    peak_gib: float | None
    """Of GPU memory; not measured on the CPU."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 for a wrong argument."""
    options = _parser().parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda: this machine has no CUDA device (cami2v doctor)", file=sys.stderr)
        return 2
    try:
        rows = time_steps(options.backbone, torch.device(options.device), options.frames, options.rounds)
        print(_steps_table(options, rows))
        rates = time_loader(options.shards, SIZE_OF[options.backbone], options.frames, options.loader_samples)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for workers, rate in rates.items():
        print(f"loader, {workers} workers: {rate:.1f} samples/s")
    if options.json:
        result = {
            "torch": torch.__version__,
            "device": _device_name(options.device),
            "steps": [asdict(r) for r in rows],
        }
        options.json.write_text(json.dumps({**result, "loader_samples_per_second": rates}, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", choices=sorted(CAMERA_OF), default="tiny")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shards", type=Path, help="shard set for the loader; none: a small synthetic one is made")
    parser.add_argument("--loader-samples", type=int, default=48)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser


def time_steps(backbone: str, device: torch.device, frames: int, rounds: int) -> list[Row]:
    """Time training steps of the bare backbone and of CamI2V on it, in turns, after one round of warming up."""
    bare, controlled = (_model(backbone, camera, frames, device) for camera in ("none", CAMERA_OF[backbone]))
    batch = orbit_batch(frames, SIZE_OF[backbone]).to(device)
    steps = {
        "bare backbone, all weights train": _step(bare, "all", batch),
        "CamI2V, all weights train": _step(controlled, "all", batch),
        "CamI2V, only its own weights train": _step(controlled, "camera", batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, step in steps.items():
            took, peak = _timed(step, device)
            if number:
                seconds[name].append(took)
                peaks[name] = max(peak, peaks.get(name, 0.0))
    reference = next(iter(seconds.values()))
    return [
        Row(
            variant=name,
            median_seconds=statistics.median(took),
            ratio_to_bare=statistics.median(mine / theirs for mine, theirs in zip(took, reference, strict=True)),
            peak_gib=peaks[name] if device.type == "cuda" else None,
        )
        for name, took in seconds.items()
    ]


def time_loader(shards: Path | None, size: tuple[int, int], frames: int, samples: int) -> dict[int, float]:
    """Return samples per second by number of workers, after each worker's first sample."""
    with tempfile.TemporaryDirectory() as folder:
        if shards is None:
            shards = Path(folder) / "shards"
            pack(compose_config("pack", [*SMALL_WORLD, f"output={quote(str(shards))}", f"raw={quote(folder)}/raw"]))
        rates = {}
        for workers in (0, 2):
            overrides = [
                f"data.shards={quote(str(shards))}",
                f"data.frames={frames}",
                f"data.resolution=[{size[0]},{size[1]}]",
                "data.frame_stride=1",
                f"data.num_workers={workers}",
                "data.shared_shards=allow",
            ]
            loader: ClipLoader = instantiate_part(compose_config("train", overrides).data, "data")
            stream = loader.stream(micro_batch_size=1, rank=0, world_size=1, seed=0, start=0)
            for _ in range(max(workers, 1)):
                next(stream)
            start = time.perf_counter()
            for _ in range(samples):
                next(stream)
            rates[workers] = samples / (time.perf_counter() - start)
        return rates


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


def _timed(step: Callable[[], None], device: torch.device) -> tuple[float, float]:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0


def _steps_table(options: argparse.Namespace, rows: Sequence[Row]) -> str:
    height, width = SIZE_OF[options.backbone]
    lines = [
        f"backbone={options.backbone}, one clip of {options.frames} x {height} x {width},"
        f" {'bf16' if options.device == 'cuda' else 'fp32'}, {_device_name(options.device)}, torch {torch.__version__},"
        f" {options.rounds} rounds"
    ]
    for row in rows:
        memory = "" if row.peak_gib is None else f"  peak {row.peak_gib:.1f} GiB (both models loaded)"
        lines.append(f"{row.variant:<36}{row.median_seconds * 1e3:9.1f} ms/step  x{row.ratio_to_bare:.2f}{memory}")
    return "\n".join(lines)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU with {torch.get_num_threads()} threads"


if __name__ == "__main__":
    raise SystemExit(main())
