"""Jobs on a real Slurm of two nodes: training that is preempted, the script's ways to end, packing as an array."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cami2v.training.preemption import REQUEUE_EXIT_CODE
from launch.compose import compose_config, instantiate_part
from launch.sweeps.folder import SweepFolder
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.slurm_cluster import FINISHED, SlurmCluster, slurm_cluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
STEPS = 20
TRAINING = [
    "engine=zero2", "data.num_workers=1", "data.frames=4", "data.resolution=[64,64]", "data.frame_stride=1",
    f"trainer.max_steps={STEPS}", "trainer.trainable=all", "trainer.global_batch_size=2", "trainer.micro_batch_size=1",
    "trainer.checkpoint_every_steps=1000", "trainer.validate_every_steps=0", "logging=off",
]  # fmt: skip

STUB = '''#!{python}
"""Stands in for training on two nodes: it saves when it is told to, process 0 slowly."""
import os, signal, sys, time
rank, start = os.environ["RANK"], os.environ.get("SLURM_RESTART_COUNT", "0")
print("rank", rank, "of", os.environ["WORLD_SIZE"], "on", os.environ["SLURMD_NODENAME"], "start", start, flush=True)
told = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: told.append(number))
if os.environ["STUB"] == "crash" and rank == "1":
    sys.exit(3)
if start == "1" and os.environ["STUB"] == "save":
    sys.exit(0)
while not told and os.environ["STUB"] != "never done":
    time.sleep(0.05)
time.sleep(1.5 if rank == "0" else 0)
print("rank", rank, "saved", flush=True)
sys.exit({requeue})
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with slurm_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips_folder(tmp_path_factory.mktemp("clips") / "raw", splits=["train"] * 4 + ["test"] * 2)


def submit(cluster: SlurmCluster, *words: str | Path) -> tuple[str, str]:
    """Run a command of ours that submits a job; return the job's number and its log's path."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words), "cluster=slurm"], cwd=ROOT, env=cluster.environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    submitted, log = done.stdout.splitlines()[-2:]
    return submitted.split()[2].rstrip(":"), log.removeprefix("log: ")


def comes_back(cluster: SlurmCluster, number: str, log: Path) -> None:
    """Let a requeued job start soon, where Slurm would wait for two minutes.

    Not at once: one of many such starts ended with exit code 1 before the script's first line.
    """

    def waiting() -> bool:
        return cluster.job(number)["JobState"] == "PENDING"

    wait_for(waiting, seconds=90, what=f"job {number} back in the queue", more=log.read_text)
    cluster.command("scontrol", "update", f"jobid={number}", "StartTime=now+3")


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return sum('"loss"' in line for line in path.read_text().splitlines()) if path.is_file() else 0


def test_a_preempted_two_node_zero2_run_has_the_losses_of_an_undisturbed_one(
    cluster: SlurmCluster, clips: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    shards = pack_quietly(clips, tmp_path / "shards").folder
    common = ["launch.train", f"data={shards}", f"paths.runs={tmp_path}", *TRAINING, "cluster.nodes=2"]
    # First, for nobody waits for its steps: the other one is watched from its submission on.
    undisturbed, _ = submit(cluster, *common, "name=undisturbed")
    number, log_path = submit(cluster, *common, "name=preempted")
    log = Path(log_path)
    run = tmp_path / "preempted"

    def at_least(steps: int) -> None:
        def happened() -> bool:
            assert cluster.job(number)["JobState"] not in FINISHED, log.read_text()
            return steps_done(run) >= steps

        wait_for(happened, seconds=240, what=f"step {steps}", more=log.read_text)

    at_least(3)
    # As an administrator or a job of higher priority does: Slurm ends the job and puts it back itself.
    cluster.command("scontrol", "requeue", number)
    comes_back(cluster, number, log)
    at_least(8)
    # As the time limit does: the script's shell alone is warned, and asks for the requeue.
    cluster.command("scancel", "--batch", "--signal=USR1", number)
    comes_back(cluster, number, log)
    ended = cluster.wait_until_finished(number, seconds=240)
    text = log.read_text()
    assert ended["JobState"] == "COMPLETED", text[-5000:]
    assert ended["Restarts"] == "2"
    assert text.count("on node[1-2]\n") == 3, "one log tells the whole story"
    assert f"exit code {REQUEUE_EXIT_CODE}: back into the queue" in text
    assert cluster.wait_until_finished(undisturbed, seconds=240)["JobState"] == "COMPLETED"

    compared = subprocess.run(
        [sys.executable, "-m", "tools.compare_losses", "--exact", tmp_path / "undisturbed", run], cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    record_property("shown", compared.stdout)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))


def test_a_script_ends_as_its_processes_do(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    stub = tmp_path / "stub"
    stub.write_text(STUB.format(python=sys.executable, requeue=REQUEUE_EXIT_CODE))
    stub.chmod(0o755)
    settings = [
        f"paths.runs={tmp_path}", "cluster.nodes=2", f"cluster.python={stub}", "cluster.check=false",
        "cluster.max_requeues=1",
    ]  # fmt: skip
    jobs: dict[str, tuple[str, Path]] = {}
    for name, does in {"saves": "save", "crashes": "crash", "loops": "never done", "cancelled": "save"}.items():
        overrides = [f"name={name}", *settings, f"+cluster.environment.STUB='{does}'", "cluster=slurm"]
        config = compose_config("train", overrides)
        instantiate_part(config.cluster, "cluster").start("train", config, overrides)
        submitted, log = capsys.readouterr().out.splitlines()
        jobs[name] = submitted.split()[2].rstrip(":"), Path(log.removeprefix("log: "))

    def on_both_nodes() -> bool:
        # Of the jobs that wait to be told; in the others one process may end the other before that says anything.
        texts = [log.read_text() if log.is_file() else "" for _, log in (jobs["saves"], jobs["cancelled"])]
        return all(text.count("of 2 on node") >= 2 for text in texts)

    wait_for(on_both_nodes, seconds=60, what="two processes of both jobs", more=cluster.logs)
    cluster.command("scancel", "--batch", "--signal=USR1", jobs["saves"][0])
    cluster.command("scancel", jobs["cancelled"][0])
    for name in ("saves", "loops"):
        comes_back(cluster, *jobs[name])
    ended = {name: cluster.wait_until_finished(number, seconds=90) for name, (number, _) in jobs.items()}
    logs = {name: log.read_text() for name, (_, log) in jobs.items()}

    def outcome(job: Mapping[str, str]) -> tuple[str, str, str]:
        return job["JobState"], job["ExitCode"].partition(":")[0], job["Restarts"]

    # Process 1 ends first; process 0 still saves.
    assert outcome(ended["saves"]) == ("COMPLETED", "0", "1"), logs["saves"]
    assert logs["saves"].index("rank 1 saved") < logs["saves"].index("rank 0 saved") < logs["saves"].index("start 2")
    assert outcome(ended["loops"]) == ("FAILED", str(REQUEUE_EXIT_CODE), "1"), logs["loops"]
    assert "not requeued, 1 times are enough (cluster.max_requeues)" in logs["loops"]
    # One process that dies takes the other one with it, and nobody takes that for a preemption.
    state, code, restarts = outcome(ended["crashes"])
    assert (state, restarts) == ("FAILED", "0"), logs["crashes"]
    assert code not in ("0", str(REQUEUE_EXIT_CODE))
    assert outcome(ended["cancelled"])[::2] == ("CANCELLED", "0"), logs["cancelled"]


def test_a_sweep_is_killed_and_its_jobs_are_not(cluster: SlurmCluster, tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/bash\nshift 2\nexec {sys.executable} {ROOT}/tests/launch/sweep_training.py "$@"\n')
    stub.chmod(0o755)
    decays = [0.0, 0.1, 0.2, 0.3, 0.5, 0.6]  # 0.1 raises, 0.2 waits at step 3, 0.3 is preempted once
    folder = SweepFolder(tmp_path / "sweeps" / "jobs")
    runs = [folder.run(number) for number in range(len(decays))]
    for run in runs[4:]:
        run.mkdir(parents=True)
        (run / "WAIT").touch()
    command = [
        sys.executable, "-m", "launch.sweep", f"+sweep.space.optimizer.weight_decay={decays}", "sweep.sampler=grid",
        f"paths.runs={tmp_path}", "name=jobs", "sweep.objective={key: loss, reduce: last}", "sweep.parallel=4",
        "sweep.poll_seconds=0.2", "sweep.queue_seconds=0.5", "sweep.trial_cluster=slurm",
        f"sweep.trial_cluster.python={stub}", "sweep.trial_cluster.check=false",
    ]  # fmt: skip
    log = tmp_path / "sweep.log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(command, cwd=ROOT, env=cluster.environment, stdout=output, stderr=output)

    def wait(sweep: subprocess.Popen[bytes], happened: Callable[[], bool], what: str) -> None:
        def watched() -> bool:
            done = happened()
            assert done or sweep.poll() is None, log.read_text()
            return done

        wait_for(watched, seconds=120, what=what, more=log.read_text)

    def job(number: int) -> str:
        return str(json.loads((runs[number] / "slurm" / "submitted.json").read_text())["job"])

    sweep = start()
    wait(sweep, lambda: steps_done(runs[2]) == 2 and steps_done(runs[3]) >= 4, "trials 2 and 3")
    comes_back(cluster, job(3), runs[3] / "slurm" / f"train-{job(3)}.log")
    cluster.command("scancel", job(2))
    wait(sweep, lambda: all((run / "starts").is_file() for run in runs), "the last trials")
    wait(sweep, lambda: "was cancelled" in log.read_text(), "trial 2 to be recorded")
    sweep.kill()
    sweep.wait()
    jobs = [job(4), job(5)]
    (runs[5] / "WAIT").unlink()
    wait_for((runs[5] / "slurm" / f"exit-code-{jobs[1]}").is_file, seconds=60, what="trial 5 without a sweep")

    sweep = start()
    wait(sweep, lambda: f"found as job {jobs[0]}" in log.read_text(), "the job that runs")
    (runs[4] / "WAIT").unlink()
    assert sweep.wait(120) == 0, log.read_text()
    table = json.loads((folder.path / "trials.json").read_text())
    assert [row["state"] for row in table] == ["finished", "failed", "failed", *["finished"] * 3], log.read_text()
    assert table[1]["reason"] == "exit code 1: RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    assert table[2]["reason"].endswith("was cancelled")
    assert [row["starts"] for row in table] == [1] * 6, "jobs are submitted once, and go on"
    begun = [len((run / "starts").read_text().splitlines()) for run in runs]
    assert begun == [1, 1, 1, 2, 1, 1], "Slurm itself has started the preempted one again"
    for row, run in zip(table, runs, strict=True):
        if row["state"] == "finished":
            assert row["value"] == row["parameters"]["optimizer.weight_decay"] + 1 / 8
            assert steps_done(run) == 8


def test_packing_as_an_array_gives_the_bytes_of_plain_packing(
    cluster: SlurmCluster, clips: Path, tmp_path: Path
) -> None:
    plain = ["launch.pack", f"source={clips}", "pack.min_shards=4", "pack.processes=1", "pack.min_frames=4"]
    number, log = submit(cluster, *plain, f"output={tmp_path}/array", f"paths.runs={tmp_path}", "cluster.array=3")
    alone = subprocess.run(
        [sys.executable, "-m", *plain, f"output={tmp_path}/alone"], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr[-3000:]
    wait_for(lambda: (tmp_path / "array").is_dir(), seconds=120, what="the set", more=cluster.logs)
    logs = [Path(log.replace("<task>", str(task))).read_text() for task in range(3)]
    assert sum("of other tasks are not finished" in text for text in logs) == 2, "\n".join(logs)
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "array").iterdir())
    for name in names:
        assert (tmp_path / "array" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert number in log
