"""The folder of one run: where things lie, what may be resumed, one consistent history of metrics.

<run>/config.yaml  metrics.jsonl  checkpoints/{step-00000010/{*.safetensors,trainer.json},latest}
<run>/samples/step-00000010/<clip>.mp4  skipped_clips.jsonl  wandb/  tensorboard/  PREEMPT  PREEMPTED  RUNNING
<run>/system.json  config_changes.json
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 2
"""Version of the checkpoint layout."""
WEIGHTS = "trainable.safetensors"
AVERAGE = "ema.safetensors"
OPTIMIZER = "optimizer.safetensors"
RANDOM_STATES = "random_states.safetensors"
RECORD = "trainer.json"

_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and bookkeeping of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The config the run was last started with."""
        return self.path / "config.yaml"

    @property
    def loaded_weights(self) -> Path:
        """What became of every name in the released weights the run started from."""
        return self.path / "loaded_weights.txt"

    @property
    def system(self) -> Path:
        """What the run ran on: a list with an entry per start."""
        return self.path / "system.json"

    @property
    def config_changes(self) -> Path:
        """Where the config differs from the experiment's."""
        return self.path / "config_changes.json"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def metrics(self) -> Path:
        """One JSON object per line; steps never repeat."""
        return self.path / "metrics.jsonl"

    @property
    def skipped_clips(self) -> Path:
        """One JSON object per clip whose place in training another one took."""
        return self.path / "skipped_clips.jsonl"

    @property
    def samples(self) -> Path:
        """Validation videos."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Checkpoint folders and the file `latest`."""
        return self.path / "checkpoints"

    @property
    def preempt(self) -> Path:
        """Whoever creates this file asks the run to save at the next step and leave the machine."""
        return self.path / "PREEMPT"

    @property
    def preempted(self) -> Path:
        """Is there while the run waits to be started again: for launchers that lose the exit code, such as torchrun."""
        return self.path / "PREEMPTED"

    @property
    def faults(self) -> Path:
        """What bad steps trained on."""
        return self.path / "faults"

    def check_writable(self) -> None:
        """Raise ValueError where nothing can be written here."""
        existing = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.is_dir())
        if not os.access(existing, os.W_OK):
            why = "read-only file system" if os.statvfs(existing).f_flag & os.ST_RDONLY else "no permission"
            raise ValueError(
                f"paths.runs: {existing} cannot be written ({why}), and the run's folder is {self.path}; "
                "choose another one with paths.runs=<folder>"
            )

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step."""
        return self.checkpoints / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """List the steps of complete checkpoints, oldest first (unfinished ones have other names)."""
        names = [entry.name for entry in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        return sorted(int(match[1]) for match in map(_STEP.fullmatch, names) if match)

    def latest(self) -> Path | None:
        """Return the checkpoint to continue from, or None where the run has none.

        Raises ValueError where checkpoints exist but the file `latest` does not name one of them.
        """
        steps = self.steps()
        if not steps:
            return None
        pointer = self.checkpoints / "latest"
        name = pointer.read_text().strip() if pointer.is_file() else None
        if name is None and len(steps) == 1:
            # Killed between the first checkpoint's completion and the writing of `latest`.
            return self.checkpoint(steps[0])
        if name is None or not (self.checkpoints / name).is_dir():
            raise ValueError(
                f"{pointer}: {'missing' if name is None else f'names {name!r}, which does not exist'}; "
                f"write one of these into it: {', '.join(f'step-{step:08d}' for step in steps)}"
            )
        return self.checkpoints / name

    def set_latest(self, checkpoint: Path) -> None:
        """Point `latest` at a checkpoint, atomically."""
        replace_text(self.checkpoints / "latest", checkpoint.name + "\n")

    def prune(self, keep: int, keep_every_steps: int = 0) -> None:
        """Delete the oldest complete checkpoints beyond the last `keep`, and leftovers of interrupted work.

        Those whose step is a multiple of `keep_every_steps` stay (0: none).
        """
        latest = self.latest()
        # Later steps than the latest one exist where `latest` was set back by hand; they are not older ones.
        for step in [step for step in self.steps() if latest and self.checkpoint(step) <= latest][:-keep]:
            if keep_every_steps and step % keep_every_steps == 0:
                continue
            folder = self.checkpoint(step)
            # Renamed first: a deletion that is interrupted must not leave half a checkpoint under a good name.
            doomed = folder.with_name(f".removing-{folder.name}")
            os.replace(folder, doomed)
            shutil.rmtree(doomed)
        self.clean()

    def clean(self) -> None:
        """Delete what interrupted saves and deletions left."""
        if self.checkpoints.is_dir():
            for entry in self.checkpoints.iterdir():
                if entry.name.startswith((".saving-", ".removing-", ".replaced-")):
                    shutil.rmtree(entry)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one row, whole or not at all; raises OSError where the disk is full or refuses."""
        self.path.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(row) + "\n").encode()
        with self.metrics.open("ab", buffering=0) as file:
            before = file.tell()
            if file.write(line) != len(line):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics))

    def trim_metrics(self, last_step: int) -> int:
        """Move rows after `last_step` to metrics.discarded.jsonl; return how many.

        They were logged after the checkpoint that the run now continues from, and will be logged again.
        """
        if not self.metrics.is_file():
            return 0
        kept: list[str] = []
        moved: list[str] = []
        for line in self.metrics.read_text().splitlines(keepends=True):
            (kept if _step_of(line) <= last_step else moved).append(line if line.endswith("\n") else line + "\n")
        if moved:
            with (self.path / "metrics.discarded.jsonl").open("a") as file:
                file.writelines(moved)
            replace_text(self.metrics, "".join(kept))
        return len(moved)


def resolve_resume(resume: str | None, run: RunFolder) -> tuple[RunFolder, Path | None]:
    """Return the folder to train in and the checkpoint to continue from (None: start at step 0).

    `resume` is None, "auto" (continue if `run` has a checkpoint, else start) or a run folder, which then is the run's
    folder. Raises ValueError where a named run has no checkpoint, and where a new run would mix with an old one.
    """
    if resume is None:
        if run.steps():
            raise ValueError(
                f"{run.path}: this folder already holds checkpoints of a run (last: step {run.steps()[-1]}); "
                "continue it with resume=auto, or start anew under another name=... or paths.runs=..."
            )
        return run, None
    if resume == "auto":
        return run, run.latest()
    chosen = RunFolder(Path(resume))
    if _STEP.fullmatch(chosen.path.name) and (chosen.path / RECORD).is_file():
        raise ValueError(
            f"resume: got the checkpoint {resume}, expected its run folder {chosen.path.parent.parent}; the file "
            "checkpoints/latest there names the checkpoint to continue from"
        )
    latest = chosen.latest()
    if latest is None:
        what = "has no checkpoints" if chosen.path.is_dir() else "does not exist"
        raise ValueError(
            f"resume: got {resume}, which {what}; give a run folder with checkpoints/, or resume=auto to start if "
            "there is none"
        )
    return chosen, latest


def replace_text(path: Path, text: str) -> None:
    """Write a file that appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        # A line that was cut off when the run was killed.
        return float("inf")
