"""All engines in real processes: two of them, gloo, several cases per launch because starting costs more than training.

ZeRO-3 comes last in every launch: it replaces torch.nn.functional.linear for the rest of the process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[3]
PROGRAM = ["-m", "tests.cami2v.training.toys"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *PROGRAM]
SHARDED = ("ddp", "zero1", "zero2", "zero3")
CASES = [(kind, "fp32") for kind in SHARDED[:3]] + [("ddp", "bf16"), ("zero2", "bf16"), ("zero3", "fp32")]
STEPS, HALF = 20, 10


def launch(command: list[str], cases: list[dict]) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    return subprocess.run(
        [*command, json.dumps(cases)], cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=540, check=False,
    )  # fmt: skip


def train(command: list[str], cases: list[dict]) -> None:
    done = launch(command, cases)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def case(folder: Path, kind: str, precision: str, **more: object) -> dict:
    name = f"{kind}-{precision}"
    return {"folder": str(folder / name), "kind": kind, "precision": precision, "max_steps": STEPS,
            "checkpoint_every_steps": HALF, **more}  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "trainable.safetensors")


def assert_same_bits(left: Path, right: Path) -> None:
    assert losses(left) == losses(right)
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps under every engine with two processes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(TORCHRUN, [case(folder, kind, precision) for kind, precision in CASES])
    return folder


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, uninterrupted: Path) -> Path:
    """Ten of those steps, then ten more in new processes: what a run killed after step 10 leaves, continued."""
    folder = tmp_path_factory.mktemp("resumed")
    for kind, precision in CASES:
        name = f"{kind}-{precision}"
        shutil.copytree(uninterrupted / name, folder / name)
        shutil.rmtree(folder / name / "checkpoints" / f"step-{STEPS:08d}")
        (folder / name / "checkpoints" / "latest").write_text(f"step-{HALF:08d}\n")
    train(TORCHRUN, [case(folder, kind, precision, resume="auto") for kind, precision in CASES])
    return folder


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same steps in one process, without and with DeepSpeed."""
    folder = tmp_path_factory.mktemp("one_process")
    train([sys.executable, *PROGRAM], [case(folder, kind, "fp32") for kind in ("single", "ddp", "zero2", "zero3")])
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
    """Same batches, dropout, clipping (active here), accumulation and learning rate under every engine."""
    reference = one_process / "single-fp32"
    assert losses(uninterrupted / f"{kind}-fp32") == pytest.approx(losses(reference), rel=1e-5)
    ours = weights(uninterrupted / f"{kind}-fp32")
    for name, value in weights(reference).items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "zero2", "zero3"])
def test_one_process_is_enough_for_every_engine(one_process: Path, kind: str) -> None:
    assert losses(one_process / f"{kind}-fp32") == pytest.approx(losses(one_process / "single-fp32"), rel=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "zero2"])
def test_bf16_follows_fp32(uninterrupted: Path, kind: str) -> None:
    low, full = losses(uninterrupted / f"{kind}-bf16"), losses(uninterrupted / f"{kind}-fp32")
    assert low != full
    assert low == pytest.approx(full, rel=2e-2)


def test_checkpoints_of_sharded_engines_hold_no_frozen_weights(uninterrupted: Path) -> None:
    for kind in ("zero1", "zero2", "zero3"):
        shards = uninterrupted / f"{kind}-fp32" / "checkpoints" / f"step-{STEPS:08d}" / "engine" / "pytorch_model"
        files = [path for path in shards.iterdir() if "model_states" in path.name]
        assert files
        for path in files:
            # Written by this test's own run.
            state = torch.load(path, map_location="cpu", weights_only=False)
            assert not [name for name in state["module"] if "frozen" in name], path


def test_a_run_killed_while_saving_keeps_the_previous_checkpoint_and_continues_exactly(
    tmp_path: Path, one_process: Path
) -> None:
    killed = launch([sys.executable, *PROGRAM], [case(tmp_path, "single", "fp32", kill_at=STEPS)])
    assert killed.returncode == -signal.SIGKILL
    run = tmp_path / "single-fp32"
    left = sorted(entry.name for entry in (run / "checkpoints").iterdir())
    assert left == [f".saving-step-{STEPS:08d}", "latest", f"step-{HALF:08d}"]
    assert len(losses(run)) == STEPS
    train([sys.executable, *PROGRAM], [case(tmp_path, "single", "fp32", resume="auto")])
    assert_same_bits(run, one_process / "single-fp32")
    assert len((run / "metrics.discarded.jsonl").read_text().splitlines()) == STEPS - HALF


@pytest.mark.parametrize("kind", ["ddp", "zero2"])
def test_accelerate_launch_is_the_same_program(tmp_path: Path, uninterrupted: Path, kind: str) -> None:
    command = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
        str(ROOT / "launch" / "accelerate" / f"{kind}.yaml"), "--num_processes=2", "--main_process_port=0", *PROGRAM,
    ]  # fmt: skip
    train(command, [case(tmp_path, kind, "fp32")])
    assert_same_bits(tmp_path / f"{kind}-fp32", uninterrupted / f"{kind}-fp32")


def test_accelerate_launch_of_another_engine_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
        str(ROOT / "launch" / "accelerate" / "zero2.yaml"), "--num_processes=1", "--main_process_port=0", *PROGRAM,
    ]  # fmt: skip
    refused = launch(command, [case(tmp_path, "zero1", "fp32")])
    assert refused.returncode != 0
    assert "engine.kind: got zero1, but accelerate launch was configured for zero2" in refused.stderr
