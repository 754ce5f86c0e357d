"""`cami2v sweep` as users start it: killed, interrupted, started again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.sweeps.folder import SweepFolder
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("sweep_training.py")
DECAYS = [0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8]


def start(tmp_path: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.sweep", f"paths.runs={tmp_path / 'runs'}", *overrides], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "FAKE_STEP_SECONDS": "0.1", "HOME": str(tmp_path)},
    )  # fmt: skip


def wait_for(condition, sweep: subprocess.Popen, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert sweep.poll() is None, sweep.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps(run: Path) -> list[int]:
    metrics = run / "metrics.jsonl"
    return [json.loads(line)["step"] for line in metrics.read_text().splitlines()] if metrics.is_file() else []


@pytest.mark.slow
def test_eight_trials_of_which_one_raises_one_is_killed_and_the_sweep_too(tmp_path: Path) -> None:
    space = tmp_path / "decay.yaml"
    space.write_text(
        f"sampler: grid\ncommand: [{sys.executable}, {FAKE}]\nobjective: {{key: loss, reduce: last}}\nparallel: 2\n"
        f"poll_seconds: 0.1\nspace:\n  optimizer.weight_decay: {DECAYS}\n"
    )
    folder = SweepFolder(tmp_path / "runs" / "sweeps" / "decay")
    runs = [folder.run(number) for number in range(8)]

    sweep = start(tmp_path, f"sweep={space}")
    wait_for(lambda: len(steps(runs[0])) == 8 and len(steps(runs[2])) == 2, sweep)
    with pytest.raises(ValueError, match="another process works on this sweep"), folder.claimed():
        pass
    os.kill(int((runs[2] / "starts").read_text().split()[0]), signal.SIGKILL)
    (runs[4]).mkdir(parents=True)
    (runs[4] / "WAIT").touch()
    wait_for(lambda: (runs[4] / "starts").is_file(), sweep)
    sweep.kill()
    sweep.wait()
    (runs[4] / "WAIT").unlink()

    sweep = start(tmp_path, f"sweep={space}")
    wait_for(lambda: len(steps(runs[5])) >= 2, sweep)
    sweep.send_signal(signal.SIGINT)
    said = sweep.communicate(timeout=240)[0]
    assert sweep.returncode == 130, said
    assert "interrupted, the same command continues it" in said

    sweep = start(tmp_path, f"sweep={space}")
    said = sweep.communicate(timeout=240)[0]
    assert sweep.returncode == 0, said

    table = json.loads((folder.path / "trials.json").read_text())
    assert [row["parameters"]["optimizer.weight_decay"] for row in table] == DECAYS
    states = [row["state"] for row in table]
    assert states == ["finished", "failed", "failed", *["finished"] * 5]
    assert table[1]["reason"] == "exit code 1: RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    assert table[2]["reason"] == "killed by SIGKILL (out of memory?)"
    for row, run in zip(table, runs, strict=True):
        if row["state"] == "finished":
            assert row["value"] == row["parameters"]["optimizer.weight_decay"] + 1 / 8
            assert steps(run) == list(range(1, 9))
        begun = (run / "starts").read_text().splitlines()
        # One that was interrupted at once had no time to note it.
        assert 1 <= len(begun) <= row["starts"]
        assert len({line.split()[1] for line in begun}) == 1
    assert [row["starts"] for row in table[:3]] == [1, 1, 1]
    # Trial 3 was preempted once, trial 4 ran when the sweep was killed; both may have been interrupted as well.
    assert all(row["starts"] >= 2 for row in table[3:5])
    with (folder.path / "trials.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == states
    assert f"6 finished, 2 failed of 8 trials; {folder.path / 'report.html'}" in said
    assert (folder.path / "trials.md").read_text().count("\n") == 10
    page = (folder.path / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "src=" not in page


@pytest.mark.slow
def test_two_real_trainings_and_a_second_start_runs_nothing(tmp_path: Path) -> None:
    shards = pack_quietly(clips_folder(tmp_path / "raw", 4, splits=["train"] * 4), tmp_path / "shards").folder
    space = tmp_path / "rates.yaml"
    fixed = [
        f"data={shards}", "data.num_workers=0", "data.frames=4", "data.resolution=[64,64]", "data.frame_stride=1",
        "trainer.trainable=all", "trainer.max_steps=2", "trainer.global_batch_size=2", "logging=off",
        "trainer.checkpoint_every_steps=1", "trainer.validate_every_steps=0",
    ]  # fmt: skip
    space.write_text(
        "sampler: random\ntrials: 2\nparallel: 2\nobjective: {key: loss}\nspace:\n"
        "  optimizer.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}\nfixed:\n"
        + "".join(f"  - {json.dumps(item)}\n" for item in fixed)
    )
    for _ in range(2):
        sweep = start(tmp_path, f"sweep={space}")
        said = sweep.communicate(timeout=500)[0]
        assert sweep.returncode == 0, said
    assert "2 trials, 0 of them to run" in said
    folder = SweepFolder(tmp_path / "runs" / "sweeps" / "rates")
    table = json.loads((folder.path / "trials.json").read_text())
    for number, row in enumerate(table):
        rows = [json.loads(line) for line in (folder.run(number) / "metrics.jsonl").read_text().splitlines()]
        assert row["value"] == min(each["loss"] for each in rows if "loss" in each)
        rate = row["parameters"]["optimizer.learning_rate"]
        assert f"learning_rate: {rate}" in (folder.run(number) / "config.yaml").read_text()
        assert row["starts"] == 1
    assert len(table) == 2
