"""Show that training survives kill -9 and moves: real runs of `cami2v train` on a tiny model, with all state compared.

`python -m tools.check_resume kills` trains every engine and precision without interruption, then again with kill -9 at
random steps, each followed by resume=auto, and demands equal losses, weights, average and optimizer state, bit for bit.
`python -m tools.check_resume moves` trains 10 steps under zero2 on two processes, 10 under ddp on one and 10 under
zero3 on two, and compares with 30 uninterrupted steps of ddp on two; what 30 uninterrupted steps on one process and of
zero3 on two differ from those is the noise of fp32. Exit code 1 where something differs.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from cami2v.training.run_folder import AVERAGE, OPTIMIZER, WEIGHTS, RunFolder
from cami2v.training.trained_state import Part
from launch.compose import compose_config, quote
from launch.pack import run as pack
from tools.compare_losses import read_losses

SETTINGS = (
    "experiment=demo", "ema=default", "ema.in_validation=false", "data.num_workers=0", "logging=off",
    'guards.camera_alive="off"', "optimizer.schedule=constant", "optimizer.warmup_steps=0",
    "optimizer.learning_rate=1e-4",
    "trainer.global_batch_size=4", "trainer.micro_batch_size=1", "trainer.validate_every_steps=0",
    "trainer.keep_last_checkpoints=3", "trainer.gradient_clip_norm=0.03",
)  # fmt: skip
WORLD = (
    "source=synthetic", "world.rooms=1", "world.sources={train:4,validation:1,test:1}", "world.clips_per_source=2",
    "world.frames_per_clip=16", "world.supersampling=1", "pack.min_shards=2",
)  # fmt: skip
"""Eight short rendered clips to train on, in two shards."""
PARTS = {
    "weights": (WEIGHTS, ""),
    "average": (AVERAGE, ""),
    "first moments": (OPTIMIZER, f"{Part.FIRST_MOMENT.value}/"),
    "second moments": (OPTIMIZER, f"{Part.SECOND_MOMENT.value}/"),
    "update counts": (OPTIMIZER, "step/"),
}
LONGEST_LAUNCH = 900.0
"""Seconds until a launch that writes no step is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two runs at the same step."""

    loss: float
    """Largest relative difference over all steps."""
    parts: dict[str, float]
    """Distance of all tensors of a kind, relative to their length."""
    tensors: int
    """How many tensors differ in any bit."""
    steps: int
    """Common to both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where runs read and write."""

    shards: Path
    runs: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of a run under torchrun; resume=auto makes every further one go on."""

    place: Place
    name: str
    processes: int
    overrides: tuple[str, ...]

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.place.runs / self.name

    @property
    def command(self) -> list[str]:
        """What is started."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        places = [f"data={quote(str(self.place.shards))}", f"paths.runs={quote(str(self.place.runs))}"]
        return [
            *launcher,
            "-m",
            "launch.train",
            *SETTINGS,
            *places,
            f"name={self.name}",
            "resume=auto",
            *self.overrides,
        ]

    def finish(self) -> None:
        """Train to the end. Raises RuntimeError with what the program said where it fails."""
        done = subprocess.run(self.command, capture_output=True, text=True, check=False, env=_environment())
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(self.command)}: exit code {done.returncode}\n{done.stderr[-6000:]}")

    def kill_after(self, step: int, *, delay: float) -> None:
        """Train, and kill -9 the launcher `delay` seconds after a step was logged; the kernel takes its workers along.

        Raises RuntimeError where the run ends before.
        """
        metrics = RunFolder(self.run).metrics
        quiet = subprocess.DEVNULL
        with subprocess.Popen(self.command, stdout=quiet, stderr=quiet, env=_environment()) as process:
            deadline = time.monotonic() + LONGEST_LAUNCH
            while not metrics.is_file() or metrics.read_text().count("\n") < step:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise RuntimeError(f"{' '.join(self.command)}: ended or stood still before step {step}")
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two checks; 1 where runs differ more than allowed."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        shards = folder.absolute() / "shards"
        if not shards.is_dir():
            pack(compose_config("pack", [*WORLD, f"output={quote(str(shards))}"]))
        check = check_kills if options.check == "kills" else check_moves
        return int(not check(options, Place(shards=shards, runs=folder.absolute() / "runs")))


def check_kills(options: argparse.Namespace, place: Place) -> bool:
    """Compare interrupted with uninterrupted runs; print one line each and return whether all are equal."""
    generator = random.Random(options.seed)
    equal = True
    for engine in options.engines.split(","):
        for precision in options.precisions.split(","):
            settings = (
                f"engine={engine}", f"engine.precision={precision}", f"trainer.max_steps={options.steps}",
                "trainer.checkpoint_every_steps=3",
            )  # fmt: skip
            whole, killed = (
                Launch(
                    place=place, name=f"{engine}-{precision}-{which}", processes=options.processes, overrides=settings
                )
                for which in ("whole", "killed")
            )
            whole.finish()
            steps = sorted(generator.sample(range(1, options.steps - 1), options.kills))
            for step in steps:
                killed.kill_after(step, delay=generator.uniform(0, 0.5))
            killed.finish()
            found = compare(whole.run, killed.run)
            same = found.loss == 0 and found.tensors == 0 and found.steps == options.steps
            equal &= same
            print(
                f"{engine} {precision} x {options.processes}: killed after steps {steps}; {found.steps} steps, largest "
                f"loss difference {found.loss:g}, {found.tensors} tensors differ: {'equal' if same else 'DIFFERENT'}",
                flush=True,
            )
    return equal


def check_moves(options: argparse.Namespace, place: Place) -> bool:
    """Compare a run that moves twice with one that stays, beside others that stay; return whether it is like them."""
    third = options.steps // 3
    stays = {}
    for engine, processes in (("ddp", 2), ("ddp", 1), ("zero3", 2)):
        overrides = (f"engine={engine}", *_until(3 * third))
        launch = Launch(place=place, name=f"stays-{engine}-{processes}", processes=processes, overrides=overrides)
        launch.finish()
        stays[f"{engine} x {processes}"] = launch.run
    for number, (engine, processes) in enumerate((("zero2", 2), ("ddp", 1), ("zero3", 2)), start=1):
        overrides = (f"engine={engine}", *_until(number * third))
        Launch(place=place, name="moves", processes=processes, overrides=overrides).finish()
    reference, *others = stays
    rows = {f"{name}, stays": compare(stays[reference], stays[name]) for name in others}
    moved = compare(stays[reference], place.runs / "moves")
    print(f"relative differences from {reference} over {moved.steps} steps")
    print(" " * 36 + "".join(f"{name:>16}" for name in ("loss", *PARTS)))
    for name, row in (rows | {"zero2 x 2 -> ddp x 1 -> zero3 x 2": moved}).items():
        print(f"{name:<36}" + "".join(f"{value:>16.3g}" for value in (row.loss, *row.parts.values())))
    noise = max(row.loss for row in rows.values())
    distances = {part: max(row.parts[part] for row in rows.values()) for part in PARTS}
    return moved.loss <= 2 * noise and all(moved.parts[part] <= 2 * distances[part] for part in PARTS)


def compare(reference: Path, run: Path) -> Difference:
    """Compare the losses of two runs and the tensors of their latest checkpoints."""
    expected, found = read_losses(reference), read_losses(run)
    steps = expected.keys() & found.keys()
    parts, different = {}, 0
    for part, (file, prefix) in PARTS.items():
        ours, theirs = (_tensors(folder, file, prefix) for folder in (run, reference))
        if ours.keys() != theirs.keys():
            raise RuntimeError(f"{run} and {reference} hold different tensors in {file}")
        different += sum(not torch.equal(value, theirs[name]) for name, value in ours.items())
        left, right = (torch.cat([each[name].double().flatten() for name in sorted(each)]) for each in (ours, theirs))
        parts[part] = float((left - right).norm() / right.norm())
    return Difference(
        loss=max(abs(found[step] - expected[step]) / abs(expected[step]) for step in steps),
        parts=parts,
        tensors=different,
        steps=len(steps),
    )


def _tensors(run: Path, file: str, prefix: str) -> dict[str, torch.Tensor]:
    latest = RunFolder(run).latest()
    assert latest is not None, run
    return {name: value for name, value in load_file(latest / file).items() if name.startswith(prefix)}


def _until(step: int) -> list[str]:
    return [f"trainer.max_steps={step}", f"trainer.checkpoint_every_steps={step}"]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_resume", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("check", choices=("kills", "moves"))
    parser.add_argument("--engines", default="ddp,zero1,zero2,zero3")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="decides when runs are killed")
    parser.add_argument("--folder", type=Path, help="keep shards and runs there (default: a temporary folder)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
