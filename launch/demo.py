"""`make demo`: the whole journey on a small world, through the same commands a user types, into one run folder.

synthesise and pack -> train under ZeRO-2 in two processes -> kill -9 midway -> resume -> evaluate -> sample ->
report.html
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cami2v.training.run_folder import RunFolder
from cami2v.video import read_frames
from launch.demo_report import DemoRun, write_report

ESTIMATOR_SIZE = (180, 320)
"""Height and width at which the pose estimator is shown on true videos."""
WORLD = ("world=demo",)
TRAINING = ["experiment=demo", "engine=zero2", "cluster.processes=2"]
TRAINING_SHORT_SIDE = 80
"""Rows of the packed training frames: the model sees 64, and decoding larger ones would cost a fifth of the time."""
KILL_AT = 0.55
"""Share of the steps after which the trainer is killed: between two checkpoints, so that some steps are lost."""
STAGES = 6
SAMPLED_TRAJECTORY = ("truck_right", 0.5)


def main() -> None:
    """Run every stage; the last line printed is the report's path."""
    parser = argparse.ArgumentParser(prog="python -m launch.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"), help="run folder, emptied first")
    parser.add_argument("--steps", type=int, help="training steps (default: conf/experiment/demo.yaml)")
    arguments = parser.parse_args()
    demo = Demo(arguments.folder, arguments.steps)
    try:
        demo.run()
    except DemoFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


class DemoFailedError(Exception):
    """A stage ended otherwise than it should; the message says which and where its log is."""


class Demo:
    """The stages, in order. Each is a command of its own, with its output in logs/."""

    def __init__(self, folder: Path, steps: int | None = None, world: Sequence[str] = WORLD) -> None:
        self.folder = folder
        self.world = list(world)
        self.logs = folder / "logs"
        self.shards = folder / "shards"
        self.large_shards = folder / "shards-large"
        self.train = RunFolder(folder / "train")
        self.overrides = [*TRAINING, f"data.shards={self.shards}", f"paths.runs={folder}", "name=train"]
        if steps is not None:
            self.overrides += [
                f"trainer.max_steps={steps}",
                f"trainer.checkpoint_every_steps={max(1, steps // 12)}",
                f"trainer.validate_every_steps={max(1, steps // 2)}",
            ]
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        """Empty the folder and run all stages."""
        self._empty_folder()
        with self._stage("synthesise rooms and pack shards"):
            self._pack()
        with self._stage("train CamI2V tiny, 2 processes, ZeRO-2, and kill -9 it midway"):
            killed_at = self._train_until_killed()
        with self._stage("resume from the latest checkpoint"):
            resumed_from = self.train.steps()[-1]
            self._command("train", [*self.overrides, "resume=auto"], log="train-resumed")
        with self._stage("evaluate held-out paths, right, stationary and shuffled cameras"):
            self._evaluate()
        with self._stage("sample along a preset trajectory"):
            self._sample()
        with self._stage("report"):
            report = write_report(
                DemoRun(
                    folder=self.folder, train=self.train, killed_at=killed_at, resumed_from=resumed_from,
                    seconds=dict(self.seconds),
                )
            )  # fmt: skip
        print(report.resolve())

    def _pack(self) -> None:
        """Render the world, pack it small for training and larger for the pose estimator."""
        raw = self.folder / "raw"
        sizes = {self.shards: TRAINING_SHORT_SIDE, self.large_shards: ESTIMATOR_SIZE[0]}
        sources = ["source=synthetic", f"source={raw}"]
        for source, (output, short_side) in zip(sources, sizes.items(), strict=True):
            overrides = [source, *self.world, f"raw={raw}", f"output={output}", "pack.min_shards=4"]
            self._command("pack", [*overrides, f"pack.frame_format.short_side={short_side}"], log=output.name)

    def _train_until_killed(self) -> int:
        """Start training, kill the launcher once enough steps are done, return the last step it had logged."""
        log = self.logs / "train-killed.log"
        with log.open("w") as output:
            process = subprocess.Popen(_command_line("train", self.overrides), stdout=output, stderr=output)
            try:
                while _last_step(self.train) < self._kill_step() or not self.train.steps():
                    if process.poll() is not None:
                        raise DemoFailedError(f"training ended by itself (exit {process.returncode}); see {log}")
                    time.sleep(0.05)
            finally:
                # SIGKILL cannot be caught: nothing is flushed or saved. The workers die with their launcher.
                process.send_signal(signal.SIGKILL)
                process.wait()
        killed_at = _last_step(self.train)
        print(f"      killed after step {killed_at}; checkpoints: {self.train.steps()}", flush=True)
        return killed_at

    def _kill_step(self) -> int:
        if not self.train.config.is_file():
            return 1
        from launch.compose import read_config

        return int(KILL_AT * read_config(self.train.config).trainer.max_steps)

    def _evaluate(self) -> None:
        trained = [f"data.shards={self.shards}", f"checkpoint={self.train.path}"]
        self._command("evaluate", [*trained, f"output={self.folder / 'evaluation'}", "evaluation=demo"])
        true_only = [f"data.shards={self.large_shards}", f"output={self.folder / 'estimator'}"]
        size = f"without_checkpoint.resolution={list(ESTIMATOR_SIZE)}"
        self._command("evaluate", [*true_only, size, "evaluation=demo_estimator"], log="evaluate-estimator")

    def _sample(self) -> None:
        first_clip = sorted((self.folder / "evaluation" / "videos" / "ground_truth").glob("*.mp4"))[0]
        image = self.folder / "samples" / "image.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(read_frames(first_clip, [0])[0]).save(image)
        name, extent = SAMPLED_TRAJECTORY
        self._command(
            "sample",
            [f"checkpoint={self.train.path}", f"image={image}", f"trajectory={name}", f"extent={extent}",
             "field_of_view_degrees=43", "caption='a room'", f"output={image.parent}"],
        )  # fmt: skip

    def _command(self, verb: str, overrides: list[str], *, log: str | None = None) -> None:
        path = self.logs / f"{log or verb}.log"
        with path.open("w") as output:
            status = subprocess.run(
                _command_line(verb, overrides), stdout=output, stderr=output, check=False
            ).returncode
        if status != 0:
            raise DemoFailedError(f"cami2v {verb} ended with exit code {status}; see {path}")

    @contextmanager
    def _stage(self, title: str) -> Iterator[None]:
        number = len(self.seconds) + 1
        print(f"[{number}/{STAGES}] {title} ...", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - started
        print(f"[{number}/{STAGES}] done in {self.seconds[title]:.0f} s", flush=True)

    def _empty_folder(self) -> None:
        marker = self.folder / "demo.json"
        if self.folder.exists() and any(self.folder.iterdir()) and not marker.is_file():
            raise DemoFailedError(f"{self.folder} is not empty and no earlier demo; choose another --folder")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.logs.mkdir(parents=True)
        marker.write_text(json.dumps({"written_by": "python -m launch.demo"}) + "\n")


def _command_line(verb: str, overrides: list[str]) -> list[str]:
    # One thread per process: two training processes share two cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return [sys.executable, "-m", f"launch.{verb}", *overrides]


def _last_step(run: RunFolder) -> int:
    """Return the last complete step in metrics.jsonl, 0 before the first."""
    if not run.metrics.is_file():
        return 0
    steps = [
        json.loads(line)["step"] for line in run.metrics.read_text().splitlines(keepends=True) if line.endswith("\n")
    ]
    return max(steps, default=0)


if __name__ == "__main__":
    main()
