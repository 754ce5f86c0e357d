"""All engines in real processes: two of them, gloo, several cases per launch because starting costs more than training.

Most are forked where their modules are imported already; torchrun and `accelerate launch` start two of them each.

ZeRO-3 comes last in every launch: it replaces torch.nn.functional.linear for the rest of the process.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cami2v.checkpoints.integrity import read_record
from tests.warm_processes import plain_environment, run_module, started_module

ROOT = Path(__file__).parents[3]
TOYS = "tests.cami2v.training.toys"
PROGRAM = ["-m", TOYS]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *PROGRAM]
SHARDED = ("ddp", "zero1", "zero2", "zero3", "zero3_offload")
# The order matters: ZeRO-3 last.
CASES = [(kind, precision) for kind in SHARDED for precision in ("fp32", "bf16")]
STEPS, HALF = 20, 10
CLIP = 0.25
"""Below every gradient norm of these runs."""
CHAIN_STEPS = 60
FILES = ("trainable.safetensors", "ema.safetensors", "optimizer.safetensors")


def launch(command: list[str], cases: list[dict]) -> subprocess.CompletedProcess:
    """Run the program under a launcher."""
    return subprocess.run(
        [*command, json.dumps(cases)], cwd=ROOT, env=plain_environment(), capture_output=True, text=True, timeout=540,
        check=False,
    )  # fmt: skip


@contextmanager
def torchrun(cases: list[dict]) -> Iterator[subprocess.Popen]:
    """A launch that goes on while the test does; its workers die with it."""
    with subprocess.Popen(
        [*TORCHRUN, json.dumps(cases)], cwd=ROOT, env=plain_environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for_steps(run: Path, steps: int, ended: Callable[[], int | None]) -> None:
    path, deadline = run / "metrics.jsonl", time.monotonic() + 300
    while not path.is_file() or path.read_text().count("\n") < steps:
        assert not ended(), f"ended by itself: {ended()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def train(cases: list[dict], *, processes: int = 2) -> None:
    """Train every case, one after the other, in the same processes."""
    done = run_module(TOYS, [json.dumps(cases)], processes=processes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def case(folder: Path, kind: str, precision: str, **more: object) -> dict:
    name = f"{kind}-{precision}"
    return {"folder": str(folder / name), "kind": kind, "precision": precision, "max_steps": STEPS,
            "checkpoint_every_steps": HALF, "ema_decay": 0.9, "gradient_clip_norm": CLIP,
            "background_checkpoints": True, **more}  # fmt: skip


def metrics(folder: Path, key: str) -> list[float]:
    return [json.loads(line)[key] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return metrics(folder, "loss")


def tensors(folder: Path, step: int = STEPS, files: tuple[str, ...] = FILES) -> dict[str, torch.Tensor]:
    """Weights, their average, AdamW's moments and step counts."""
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    return {f"{file}: {name}": value for file in files for name, value in load_file(checkpoint / file).items()}


def weights(folder: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return tensors(folder, step, FILES[:1])


def assert_same_bits(left: Path, right: Path) -> None:
    assert losses(left) == losses(right)
    ours, theirs = tensors(left), tensors(right)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def assert_close(left: Path, right: Path) -> None:
    """fp32 rounding, carried through the steps between."""
    assert metrics(left, "loss") == pytest.approx(metrics(right, "loss"), rel=1e-5)
    assert metrics(left, "gradient_norm") == pytest.approx(metrics(right, "gradient_norm"), rel=1e-4)
    ours, theirs = tensors(left), tensors(right)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, theirs[name], rtol=1e-3, atol=1e-5, msg=f"{name}: {left} differs from {right}"
        )


def rewind(run: Path, step: int) -> None:
    """Leave what a run killed after `step`, its last checkpoint, would have left."""
    checkpoints = run / "checkpoints"
    for later in checkpoints.glob("step-*"):
        if later.name > f"step-{step:08d}":
            shutil.rmtree(later)
    (checkpoints / "latest").write_text(f"step-{step:08d}\n")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps under every engine with two processes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    chain = case(folder / "chain", "zero2", "bf16", max_steps=CHAIN_STEPS)
    train([chain, *(case(folder, kind, precision) for kind, precision in CASES)])
    return folder


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, uninterrupted: Path) -> Path:
    """Ten of those steps, then ten more in new processes: what a run killed after step 10 leaves, continued."""
    folder = tmp_path_factory.mktemp("resumed")
    for kind, precision in CASES:
        shutil.copytree(uninterrupted / f"{kind}-{precision}", folder / f"{kind}-{precision}")
        rewind(folder / f"{kind}-{precision}", HALF)
    train([case(folder, kind, precision, resume="auto") for kind, precision in CASES])
    return folder


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same steps in one process, without and with DeepSpeed."""
    folder = tmp_path_factory.mktemp("one_process")
    train([case(folder, kind, "fp32") for kind in ("single", *SHARDED)], processes=1)
    return folder


@pytest.mark.parametrize(("kind", "precision"), CASES)
def test_ten_steps_and_resume_equal_twenty_bit_for_bit(
    uninterrupted: Path, resumed: Path, kind: str, precision: str
) -> None:
    name = f"{kind}-{precision}"
    assert len(losses(uninterrupted / name)) == STEPS
    assert_same_bits(uninterrupted / name, resumed / name)


@pytest.mark.parametrize("kind", SHARDED)
def test_two_processes_equal_one_within_rounding(uninterrupted: Path, one_process: Path, kind: str) -> None:
    """Same batches, dropout, clipping, accumulation and learning rate under every engine."""
    assert_close(uninterrupted / f"{kind}-fp32", one_process / "single-fp32")
    assert min(metrics(one_process / "single-fp32", "gradient_norm")) > CLIP, "clipping is not active"


@pytest.mark.parametrize("kind", SHARDED)
def test_one_process_is_enough_for_every_engine(one_process: Path, kind: str) -> None:
    assert_close(one_process / f"{kind}-fp32", one_process / "single-fp32")


def test_a_run_moves_between_world_sizes_and_engines(tmp_path: Path, uninterrupted: Path) -> None:
    """ZeRO-2 on two processes, DDP on one, ZeRO-3 on four: one history, the same average and moments."""
    moved = tmp_path / "zero2-fp32"
    shutil.copytree(uninterrupted / moved.name, moved)
    rewind(moved, HALF)
    same_folder = {"folder": str(moved), "resume": "auto", "checkpoint_every_steps": 5}
    train([case(tmp_path, "ddp", "fp32") | same_folder], processes=1)
    assert [read_record(moved / "checkpoints" / name)["world_size"] for name in ("step-00000015", "step-00000020")] == [
        1, 1,
    ]  # fmt: skip
    rewind(moved, 15)
    train([case(tmp_path, "zero3", "fp32") | same_folder], processes=4)
    record = read_record(moved / "checkpoints" / f"step-{STEPS:08d}")
    assert (record["engine"], record["world_size"], record["state"]["samples_seen"]) == ("zero3", 4, 4 * STEPS)
    assert metrics(moved, "step") == list(range(1, STEPS + 1))
    assert_close(moved, uninterrupted / "ddp-fp32")
    assert not torch.equal(
        *(weights(run)["trainable.safetensors: out.bias"] for run in (moved, uninterrupted / "ddp-fp32"))
    )


def test_a_run_killed_anywhere_continues_bit_for_bit(tmp_path: Path, uninterrupted: Path) -> None:
    """Kill -9 of a two-process run at moments that nothing is synchronised with, in training and in saving."""
    run = tmp_path / "zero2-bf16"
    settings = case(tmp_path, "zero2", "bf16", max_steps=CHAIN_STEPS, checkpoint_every_steps=2, resume="auto")
    with torchrun([settings]) as launcher:
        wait_for_steps(run, CHAIN_STEPS // 3, launcher.poll)
        launcher.kill()
    assert launcher.returncode == -signal.SIGKILL
    with started_module(TOYS, [json.dumps([settings])], processes=2) as started:
        wait_for_steps(run, 2 * CHAIN_STEPS // 3, started.failure)
        started.kill()
    assert started.failure() == -signal.SIGKILL
    train([settings])
    assert metrics(run, "step") == list(range(1, CHAIN_STEPS + 1))
    assert losses(run) == losses(uninterrupted / "chain" / run.name)
    ours, theirs = tensors(run, CHAIN_STEPS), tensors(uninterrupted / "chain" / run.name, CHAIN_STEPS)
    assert [name for name, value in theirs.items() if not torch.equal(ours[name], value)] == []


@pytest.mark.parametrize("kind", ["ddp", "zero2"])
def test_bf16_follows_fp32(uninterrupted: Path, kind: str) -> None:
    low, full = losses(uninterrupted / f"{kind}-bf16"), losses(uninterrupted / f"{kind}-fp32")
    assert low != full
    assert low == pytest.approx(full, rel=2e-2)


def test_checkpoints_of_every_engine_hold_the_same_and_no_frozen_weights(uninterrupted: Path) -> None:
    names = {kind: tensors(uninterrupted / f"{kind}-fp32").keys() for kind in SHARDED}
    assert len(set(map(frozenset, names.values()))) == 1
    assert not [name for name in names["zero3"] if "frozen" in name]


def test_a_run_killed_while_saving_keeps_the_previous_checkpoint_and_continues_exactly(
    tmp_path: Path, one_process: Path
) -> None:
    killed = run_module(TOYS, [json.dumps([case(tmp_path, "single", "fp32", kill_at=STEPS)])])
    assert killed.returncode == -signal.SIGKILL
    run = tmp_path / "single-fp32"
    left = sorted(entry.name for entry in (run / "checkpoints").iterdir())
    assert left == [f".saving-step-{STEPS:08d}", "latest", f"step-{HALF:08d}"]
    assert len(losses(run)) == STEPS
    train([case(tmp_path, "single", "fp32", resume="auto")], processes=1)
    assert_same_bits(run, one_process / "single-fp32")
    assert len((run / "metrics.discarded.jsonl").read_text().splitlines()) == STEPS - HALF


@pytest.mark.parametrize("kind", ["ddp", "zero2"])
def test_accelerate_launch_is_the_same_program(tmp_path: Path, uninterrupted: Path, kind: str) -> None:
    command = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
        str(ROOT / "launch" / "accelerate" / f"{kind}.yaml"), "--num_processes=2", "--main_process_port=0", *PROGRAM,
    ]  # fmt: skip
    done = launch(command, [case(tmp_path, kind, "fp32")])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert_same_bits(tmp_path / f"{kind}-fp32", uninterrupted / f"{kind}-fp32")


def test_accelerate_launch_of_another_engine_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
        str(ROOT / "launch" / "accelerate" / "zero2.yaml"), "--num_processes=1", "--main_process_port=0", *PROGRAM,
    ]  # fmt: skip
    refused = launch(command, [case(tmp_path, "zero1", "fp32")])
    assert refused.returncode != 0
    assert "engine.kind: got zero1, but accelerate launch was configured for zero2" in refused.stderr
