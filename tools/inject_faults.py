"""Inject every fault that a training run must survive into a tiny run; print what its user sees and what was lost.

Each run that the fault ended is continued with resume=auto; its losses are then compared, bit for bit, with those of a
run that nothing happened to. A full and a read-only disk are file systems in memory, which needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cami2v.training.run_folder import RunFolder
from tools.faulty_train import LATE_STEP, STEP, VARIABLE

STEPS = 10
TRAIN = ["experiment=demo", "trainer.checkpoint_every_steps=3", "trainer.validate_every_steps=0", "logging=off"]
ONE = ["trainer.global_batch_size=2", "trainer.micro_batch_size=2"]
TWO = ["engine=ddp", "cluster.processes=2", "trainer.global_batch_size=2", "trainer.micro_batch_size=1"]
LONGEST_RUN = 900.0
"""Seconds until a run is given up."""
Act = Callable[[subprocess.Popen[str], Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault, and what must come of it."""

    name: str
    code: int
    says: str
    """Part of the first line that is not information."""
    overrides: Sequence[str] = tuple(ONE)
    act: Act | None = None
    """Brings the fault once `STEP - 1` steps are logged."""
    fault: str | None = None
    """Or one of tools/faulty_train.py."""
    environment: Mapping[str, str] = field(default_factory=dict)
    disk: str | None = None
    """Mount options of the run's disk."""
    resumes: bool = True
    steps: int = STEPS


def signalled(number: int) -> Act:
    """Signal the program that was started."""
    return lambda process, folder: process.send_signal(number)


def rank_signalled(rank: int, number: int) -> Act:
    """Signal one of the processes it started."""

    def act(process: subprocess.Popen[str], folder: Path) -> None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (chosen,) = [
            c for c in children if f"RANK={rank}".encode() in Path(f"/proc/{c}/environ").read_bytes().split(b"\0")
        ]
        os.kill(int(chosen), number)

    return act


def fill(process: subprocess.Popen[str], folder: Path) -> None:
    """Write until the run's disk is full."""
    with suppress_full(), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            continue


@contextmanager
def suppress_full() -> Iterator[None]:
    """Pass over a full disk."""
    try:
        yield
    except OSError as error:
        if error.strerror != os.strerror(28):
            raise


NOBODY = {"HOME": "/nonexistent", "WANDB_API_KEY": "", "WANDB_MODE": "online"}
UNREACHABLE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
WANDB = (*ONE, "logging=local", "logging.wandb=online")
CASES = [
    Case(name="SIGTERM to the job", code=85, says="", overrides=TWO, act=signalled(signal.SIGTERM)),
    Case(name="SIGUSR1 to process 1 of 2", code=85, says="", overrides=TWO, act=rank_signalled(1, signal.SIGUSR1)),
    Case(name="file PREEMPT", code=85, says="", act=lambda process, folder: (folder / "run" / "PREEMPT").touch()),
    Case(name="Ctrl-C", code=130, says="interrupted: saving at the next step", act=signalled(signal.SIGINT)),
    Case(name="kill -9 of process 1 of 2", code=1, says="error: process 1 of 2 was killed by SIGKILL",
         overrides=TWO, act=rank_signalled(1, signal.SIGKILL)),
    Case(name="exception in process 1 of 2", code=1, says="[rank1]: Traceback", overrides=TWO, fault="raise"),
    Case(name="kill -9 of everything", code=-9, says="", act=signalled(signal.SIGKILL)),
    Case(name="clip that is not finite, stop", code=1, says=f"error: step {STEP}: loss nan", fault="nan"),
    Case(name="clip that is not finite, skip", code=0, says=f"step {STEP}: loss nan", fault="nan",
         overrides=[*ONE, "faults.bad_step=skip"], resumes=False),
    Case(name="loss that explodes", code=1, says=f"error: step {LATE_STEP}: loss", fault="explode",
         steps=LATE_STEP + 2),
    Case(name="disk full", code=1, says="checkpoints: a checkpoint needs", act=fill, disk="size=160m"),
    Case(name="run folder read-only", code=2, says="cannot be written (read-only file system)", disk="ro",
         resumes=False),
    Case(name="wandb without a login", code=0, says="refuses (No API key", overrides=WANDB, environment=NOBODY,
         resumes=False),
    Case(name="wandb out of reach", code=0, says="refuses (", overrides=WANDB, environment=UNREACHABLE, resumes=False),
]  # fmt: skip


def main() -> None:
    """Run the chosen cases; exit code 1 if one did not come out as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name matches this regular expression")
    parser.add_argument("--folder", type=Path, help="where data, runs and logs stay for the next call (default: none)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        shards = pack(folder)
        references: dict[tuple[bool, int], list[float | None]] = {}
        print("| fault | exit code | the user sees | lost |\n|---|---|---|---|")
        failures = 0
        for case in [case for case in CASES if re.search(given.only, case.name)]:
            two = "cluster.processes=2" in case.overrides
            like = (two, case.steps)
            if like not in references:
                place = folder / f"reference-{1 + two}-{case.steps}"
                references[like] = reference(place, shards, TWO if two else ONE, case.steps)
            row, good = inject(case, folder, shards, references[like])
            failures += not good
            print(f"| {row} |{'' if good else ' WRONG'}", flush=True)
    raise SystemExit(1 if failures else 0)


def inject(case: Case, parent: Path, shards: Path, expected: list[float | None]) -> tuple[str, bool]:
    """Run a case; return its row of the table, and whether it came out as it must."""
    folder = parent / case.name.replace(" ", "-").replace(",", "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with disk(folder, case.disk) as mounted:
        if not mounted:
            return f"{case.name} | | not injected: mounting needs root | ", False
        overrides = [*case.overrides, f"trainer.max_steps={case.steps}"]
        process = start(folder, shards, overrides, case.environment, fault=case.fault)
        if case.act is not None:
            wait_for_step(folder, STEP - 1, process)
            case.act(process, folder)
        said = process.communicate(timeout=LONGEST_RUN)[1]
        line = first_line(said)
        lost = "nothing"
        good = process.returncode == case.code and case.says in line
        done = len(losses(folder)) if case.disk != "ro" else 0
        if case.resumes:
            (folder / "filler").unlink(missing_ok=True)
            resumed = start(folder, shards, [*overrides, "resume=auto"], {}, fault=None)
            trouble = resumed.communicate(timeout=LONGEST_RUN)[1]
            same = resumed.returncode == 0 and losses(folder) == expected
            again = done - continued_from(trouble)
            lost = f"nothing; {again} step{'s'[: again > 1]} computed again" if again > 0 else "nothing"
            lost, good = (lost, good) if same else (f"DIFFERS: {first_line(trouble)}", False)
        elif case.fault is not None:
            good = good and losses(folder)[STEP - 1] is None and len(losses(folder)) == STEPS
            lost = "the update of the bad step"
        elif case.disk is None:
            good = good and losses(folder) == expected
    (parent / f"{folder.name}.log").write_text(said)
    return f"{case.name} | {process.returncode} | `{shortened(line, folder)}` | {lost}", good


def start(
    folder: Path, shards: Path, overrides: Sequence[str], environment: Mapping[str, str], *, fault: str | None
) -> subprocess.Popen[str]:
    """Start training in `folder`."""
    module = "launch.train" if fault is None else "tools.faulty_train"
    command = [sys.executable, "-m", module, *TRAIN, f"data={shards}", f"paths.runs={folder}", "name=run", *overrides]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment) | ({VARIABLE: fault} if fault else {})
    return subprocess.Popen(command, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Return once a step is logged, or the run has ended."""
    while process.poll() is None and len(losses(folder)) < step:
        time.sleep(0.05)


def reference(folder: Path, shards: Path, overrides: Sequence[str], steps: int) -> list[float | None]:
    """Train undisturbed, unless that was done; return the losses."""
    if len(losses(folder)) == steps:
        return losses(folder)
    process = start(folder, shards, [*overrides, f"trainer.max_steps={steps}"], {}, fault=None)
    said = process.communicate(timeout=LONGEST_RUN)[1]
    if process.returncode:
        raise SystemExit(f"the undisturbed run failed:\n{said}")
    return losses(folder)


def losses(folder: Path) -> list[float | None]:
    """Read the losses logged so far, but a row that is being written."""
    metrics = RunFolder(folder / "run").metrics
    lines = metrics.read_text().splitlines(keepends=True) if metrics.is_file() else []
    return [json.loads(line)["loss"] for line in lines if line.endswith("\n")]


def first_line(said: str) -> str:
    """Return the first line that says what is wrong, else the last line.

    Not information, not wandb's own, not the line with all overrides that Hydra puts before a traceback.
    """
    lines = [line for line in said.splitlines() if line.strip()]
    preface = ("wandb:", "Error executing job with overrides:")
    return next(
        (line for line in lines if " INFO " not in line and not line.startswith(preface)), lines[-1] if lines else ""
    )


def continued_from(said: str) -> int:
    """Return the step that a resumed run started from."""
    return int(said.partition("continuing from step-")[2][:8] or 0)


def shortened(line: str, folder: Path) -> str:
    """Return a line without clock and folder, to fit a table."""
    text = line.partition(" INFO ")[2] or line.partition(" WARNING ")[2] or line
    text = text.replace(str(folder / "run"), "<run>").replace(str(folder), "<runs>")
    return text if len(text) <= 150 else f"{text[:147]}..."


@contextmanager
def disk(folder: Path, options: str | None) -> Iterator[bool]:
    """Put a file system of its own under `folder`; yields False where that is not allowed."""
    if options is None:
        yield True
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def pack(folder: Path) -> Path:
    """Render and pack a few small clips, unless that was done."""
    shards = folder / "shards"
    if (shards / "manifest.json").is_file():
        return shards
    world = ["world=demo", "world.sources={train: 4, validation: 1, test: 1}", "world.clips_per_source=1"]
    command = [
        sys.executable, "-m", "launch.pack", "source=synthetic", *world, f"raw={folder / 'raw'}", f"output={shards}",
        "pack.min_shards=2", "pack.frame_format.short_side=80",
    ]  # fmt: skip
    packed = subprocess.run(command, capture_output=True, text=True, check=False)
    if packed.returncode:
        raise SystemExit(f"packing failed:\n{packed.stderr}")
    return shards


if __name__ == "__main__":
    main()
