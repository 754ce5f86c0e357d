"""Benchmarks: every comparison side by side in one run. The numbers of two runs are not comparable.

attention  one layer of epipolar attention: dense mask and ours, time, memory, distance from the floor (--device)
steps    what camera control costs per training and per sampling step (--device, --backbone)
loader   samples per second and core: raw 720p videos, packed shards, cached latents, on the same clips (--clips)
trainer  the trainer's step over a bare one, the stall per checkpoint, a resume (--device, --backbone)
packing  clips per second and core, and memory by number of clips: a few minutes
fvd      CPU seconds per video, and memory by number of videos: a few minutes
occupancy  what share of all pairs epipolar attention multiplies, for the poses of real clips (--clips): a few minutes
engines  single, ddp and ZeRO 1 to 3 side by side: time per step, memory per process (--processes): a minute or more
checkpointing  what activation checkpointing costs and saves, measured and counted: some minutes (--device, --backbone)
growth   time and memory of epipolar attention by frames and by resolution, as a plot: some minutes (--device)

Without a name: attention, steps, trainer and loader.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch

from cami2v.compilation import CompileMode
from tools.benchmark_attention import finest_level, measure_attention
from tools.benchmark_checkpointing import COUNTED, CheckpointingCase, measure_checkpointing
from tools.benchmark_clips import RenderedClips, posed, render
from tools.benchmark_engines import KINDS, EnginesCase, measure_engines
from tools.benchmark_fvd import measure_fvd
from tools.benchmark_growth import measure_growth
from tools.benchmark_loader import measure_loader
from tools.benchmark_occupancy import measure_occupancy
from tools.benchmark_packing import measure_packing
from tools.benchmark_report import Report, add_to_page, write_json
from tools.benchmark_steps import CAMERA_OF, PARTS, StepCase, measure_steps
from tools.benchmark_trainer import measure_trainer
from tools.step_parts import SIZE_OF
from tools.stored_sets import LoaderOptions

PAGES = Path("docs/benchmarks")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 for a wrong argument."""
    options = _parser().parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda: this machine has no CUDA device (cami2v doctor)", file=sys.stderr)
        return 2
    command = ["python -m tools.benchmark", *_without_paths(sys.argv[1:] if arguments is None else arguments)]
    reports: list[Report] = []
    pages: set[Path] = set()
    try:
        for report in _measured(options):
            reports.append(report)
            print(report.text(), end="\n\n", flush=True)
            # Each as soon as it is there: a machine's time limit takes only what is not measured yet.
            if options.json:
                write_json(reports, options.json)
            if options.page:
                pages.add(add_to_page(report, PAGES, " ".join(command)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for page in pages:
        print(page)
    return 0


def _measured(options: argparse.Namespace) -> Iterator[Report]:
    for name in options.benchmarks or ["attention", "steps", "trainer", "loader"]:
        load = os.getloadavg()[0]
        for report in MEASURE[name](options):
            yield dataclasses.replace(report, machine={**report.machine, "load": load})
            load = os.getloadavg()[0]


def _without_paths(arguments: Sequence[str]) -> Iterator[str]:
    """Yield a command line as a page may show it: where things lie on this machine is nobody's business."""
    a_path_follows = False
    for argument in arguments:
        name, given, _ = argument.partition("=")
        if not a_path_follows:
            yield f"{name} ..." if name in PATH_OPTIONS else argument
        a_path_follows = name in PATH_OPTIONS and not given


def _attention(options: argparse.Namespace) -> Iterator[Report]:
    sizes = [(256, 256), (320, 512)] if options.device == "cuda" else [(256, 256)]
    layers = [finest_level(options.device, options.attention_frames, *size) for size in sizes]
    yield measure_attention(layers, options.attention_rounds)


def _occupancy(options: argparse.Namespace) -> Iterator[Report]:
    if options.clips is None or not options.clips.is_dir():
        raise ValueError(f"--clips: got {options.clips}; occupancy needs a folder of posed videos")
    yield measure_occupancy(options.clips, options.frames, query_frames=6)


def _growth(options: argparse.Namespace) -> Iterator[Report]:
    layer = finest_level(options.device, options.attention_frames, 256, 256)
    yield measure_growth(layer, options.attention_rounds)


def _steps(options: argparse.Namespace) -> Iterator[Report]:
    for backbone in options.backbone:
        yield from measure_steps(
            StepCase(
                backbone=backbone,
                device=torch.device(options.device),
                frames=options.frames,
                rounds=options.rounds,
                parts=tuple(options.parts),
                compile=options.compile,
                compile_modes=tuple(options.compile_mode),
                cami2v=options.camera or CAMERA_OF[backbone],
            )
        )


def _trainer(options: argparse.Namespace) -> Iterator[Report]:
    yield measure_trainer(options.backbone[0], torch.device(options.device), options.frames, options.rounds)


def _engines(options: argparse.Namespace) -> Iterator[Report]:
    yield measure_engines(
        EnginesCase(
            backbone=options.backbone[0],
            device=options.device,
            frames=options.frames,
            rounds=options.engine_rounds,
            processes=options.processes or (torch.cuda.device_count() if options.device == "cuda" else 2),
            steps=options.engine_steps,
            precisions=tuple(options.precisions),
            kinds=tuple(options.engines),
        )
    )


def _checkpointing(options: argparse.Namespace) -> Iterator[Report]:
    backbone = options.backbone[0]
    yield measure_checkpointing(
        CheckpointingCase(
            backbone=backbone,
            camera=options.camera or CAMERA_OF[backbone],
            device=options.device,
            frames=options.frames,
            # At the tiny backbone's own size what every step needs hides what activations do.
            size=(128, 128) if backbone == "tiny" else SIZE_OF[backbone],
            rounds=options.attention_rounds,
            counted=options.counted,
        )
    )


def _loader(options: argparse.Namespace) -> Iterator[Report]:
    with tempfile.TemporaryDirectory() as scratch:
        rendered = RenderedClips(
            clips=options.rendered_clips, frames=options.clip_frames, height=options.height, width=options.width
        )
        if options.clips is None:
            clips = render(options.folder, rendered)
        elif not options.clips.is_dir():
            raise ValueError(f"--clips {options.clips}: no such folder")
        else:
            posed_already = (options.clips / "pose_files").is_dir()
            clips = options.clips if posed_already else posed(options.clips, Path(scratch))
        height, width = options.resolution
        low, high = options.stride
        measured = LoaderOptions(
            frames=options.frames,
            resolution=(height, width),
            stride=(low, high),
            rounds=options.rounds,
            samples=options.samples,
            worker_samples=options.worker_samples,
        )
        yield measure_loader(clips, Path(scratch) / "sets", measured)


def _packing(options: argparse.Namespace) -> Iterator[Report]:
    folder = options.folder / "packing"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield measure_packing(folder, options.packed_clips)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fvd(options: argparse.Namespace) -> Iterator[Report]:
    folder = options.folder / "fvd"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield measure_fvd(folder, options.videos, options.compared_rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


MEASURE = {
    "attention": _attention,
    "steps": _steps,
    "trainer": _trainer,
    "loader": _loader,
    "packing": _packing,
    "fvd": _fvd,
    "engines": _engines,
    "checkpointing": _checkpointing,
    "growth": _growth,
    "occupancy": _occupancy,
}
PATH_OPTIONS = ("--json", "--folder", "--clips")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # pages leave options with paths out by their names
    )
    parser.add_argument("benchmarks", nargs="*", choices=[*MEASURE, []], metavar=" | ".join(MEASURE))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=16, help="of a sample")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument(
        "--page",
        action="store_true",
        help=f"also put it on {PAGES}/<date>-<hardware>.md, and all numbers into the .json beside it",
    )
    parser.add_argument("--folder", type=Path, default=Path("data/benchmark"), help="for rendered clips, which stay")
    attention = parser.add_argument_group("attention, growth (--device)")
    attention.add_argument("--attention-rounds", type=int, default=3)
    attention.add_argument("--attention-frames", type=int, default=16)
    engines = parser.add_argument_group("engines (--device, --backbone)")
    engines.add_argument("--engines", nargs="+", choices=KINDS, default=KINDS)
    engines.add_argument("--processes", type=int, help="none: 2, with --device cuda one per GPU")
    engines.add_argument("--engine-rounds", type=int, default=3)
    engines.add_argument("--engine-steps", type=int, default=4, help="timed per round and engine")
    engines.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    checkpointing = parser.add_argument_group("checkpointing (--device, --backbone, --attention-rounds)")
    checkpointing.add_argument(
        "--counted",
        metavar="EXPERIMENT",
        nargs="*",
        default=COUNTED,
        help="full-size experiments whose steps are counted",
    )
    steps = parser.add_argument_group("steps, trainer, engines")
    steps.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    steps.add_argument(
        "--backbone",
        nargs="+",
        choices=sorted(CAMERA_OF),
        default=["tiny"],
        help="several: steps of each",
    )
    steps.add_argument("--camera", help="preset that stands for CamI2V; none: that of the backbone's published run")
    steps.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of steps")
    steps.add_argument("--compile", metavar="BACKEND", help="compile the denoiser for more rows (inductor, eager, ...)")
    steps.add_argument(
        "--compile-mode",
        nargs="+",
        choices=get_args(CompileMode),
        default=(),
        help="of --compile inductor, for still more rows; reduce-overhead and max-autotune replay CUDA graphs",
    )
    loader = parser.add_argument_group("loader")
    loader.add_argument("--clips", type=Path, help="folder of posed videos, or of bare ones; none: clips are rendered")
    loader.add_argument("--rendered-clips", type=int, default=4)
    loader.add_argument("--clip-frames", type=int, default=160, help="of a rendered clip")
    loader.add_argument("--height", type=int, default=720, help="of rendered clips")
    loader.add_argument("--width", type=int, default=1280, help="of rendered clips")
    loader.add_argument("--resolution", type=int, nargs=2, default=(256, 256), metavar=("HEIGHT", "WIDTH"))
    loader.add_argument("--stride", type=int, nargs=2, default=(1, 10), metavar=("LOW", "HIGH"))
    loader.add_argument("--samples", type=int, default=4, help="per round and way of storing")
    loader.add_argument("--worker-samples", type=int, default=64, help="per timing of worker processes")
    packing = parser.add_argument_group("packing")
    packing.add_argument("--packed-clips", type=int, nargs="+", default=[100, 300, 1000])
    fvd = parser.add_argument_group("fvd")
    fvd.add_argument(
        "--videos", type=int, nargs="+", default=(4, 16, 64), metavar="COUNT", help="sizes of sets, judged"
    )
    fvd.add_argument("--compared-rows", type=int, nargs="+", default=(500, 2000, 8000), metavar="COUNT")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
