"""Trials as Slurm jobs, with Slurm's answers made up; tests/launch/test_slurm_jobs.py asks a real one."""

import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from cami2v.training.preemption import REQUEUE_EXIT_CODE
from launch.compose import compose_config, instantiate_part, settings
from launch.sweep import run as run_command
from launch.sweeps.settings import SweepSettings
from launch.sweeps.slurm_queue import QueuedJob, SlurmQueue
from launch.sweeps.slurm_trial import SlurmTrial, Submitted
from launch.sweeps.trials import trial_jobs

SPACE = [
    "+sweep.space.seed=[1]", "sweep.sampler=grid", "cluster@sweep.trial_cluster=slurm",
    "sweep.trial_cluster.check=false",
]  # fmt: skip


class Slurm:
    """Takes every job and knows what it is told."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = True
        self.takes = True
        self.asked: int | None = None
        """Signal that reaches this process while it submits."""
        self.queued: dict[str, QueuedJob] = {}
        self.run = tmp_path / "sweep" / "trials" / "trial-0000"
        self.folder = self.run / "slurm"
        monkeypatch.setattr("launch.sweeps.slurm_trial.sbatch", self.sbatch)
        monkeypatch.setattr(SlurmQueue, "_ask", lambda queue: dict(self.queued) if self.answers else None)
        self.queue = SlurmQueue(0)

    def sbatch(self, script: Path, *, keep_open: list[int]) -> str:
        if not self.takes:
            raise ValueError("sbatch refuses: too many jobs")
        if self.asked is not None:
            os.kill(os.getpid(), self.asked)
        number = str(len(self.queued) + 1)
        self.queued[number] = QueuedJob(number, "PENDING", script)
        return number

    def ends(self, number: str, state: str, code: int | None = None, says: str = "") -> None:
        self.queued[number] = replace(self.queued[number], state=state)
        if code is not None:
            (self.folder / f"exit-code-{number}").write_text(f"{code}\n")
        verb = self.queued[number].script.stem
        (self.folder / f"{verb}-{number}.log").write_text(says)

    def trial(self, *overrides: str) -> SlurmTrial:
        """What a sweep makes of a trial when it takes it up, again and again."""
        options = options_of(*overrides)
        cluster = instantiate_part(options.trial_cluster, "sweep.trial_cluster")
        return SlurmTrial(
            cluster=cluster, jobs=lambda: trial_jobs(options, cluster, {"seed": 1}, self.run), folder=self.folder,
            queue=self.queue, lock=self.run.parents[1] / "lock",
        )  # fmt: skip


@cache
def options_of(*overrides: str) -> SweepSettings:
    return settings(compose_config("sweep", [*SPACE, *overrides]).sweep, SweepSettings, "sweep")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    slurm = Slurm(tmp_path, monkeypatch)
    slurm.run.mkdir(parents=True)
    return slurm


def test_training_and_evaluation_are_a_job_each(slurm: Slurm) -> None:
    trial = slurm.trial("sweep.objective.source=evaluation")
    assert trial.start()
    assert trial.poll() is None
    slurm.ends("1", "COMPLETED", 0)
    assert trial.poll() is None
    assert [job.script.name for job in slurm.queued.values()] == ["train.sbatch", "evaluate.sbatch"]
    # A sweep that dies now finds the second one.
    later = slurm.trial("sweep.objective.source=evaluation")
    assert later.start()
    assert later.adopted
    slurm.ends("2", "COMPLETED")
    assert later.poll() == 0
    assert len(slurm.queued) == 2


def test_a_job_of_which_there_was_no_time_to_take_note_is_found_by_its_script(slurm: Slurm) -> None:
    assert slurm.trial().start()
    (slurm.folder / "submitted.json").unlink()
    again = slurm.trial()
    assert again.start()
    assert (again.adopted, again.place, len(slurm.queued)) == (True, "job 1", 1)


@pytest.mark.parametrize(
    ("state", "left", "watched", "unwatched"),
    [
        ("FAILED", 2, (2, "exit code 2: no such camera"), (2, 1)),
        ("FAILED", 1, (1, "exit code 1: no such camera"), (1, 1)),
        ("FAILED", REQUEUE_EXIT_CODE, (REQUEUE_EXIT_CODE, "exit code 85: no such camera"), (None, 2)),
        ("TIMEOUT", None, (1, "job 1 ended: TIMEOUT"), (None, 2)),
        ("CANCELLED", REQUEUE_EXIT_CODE, (1, "job 1 was cancelled"), (None, 2)),
        ("NODE_FAIL", None, (REQUEUE_EXIT_CODE, "job 1 ended: NODE_FAIL"), (None, 2)),
        ("COMPLETED", None, (0, ""), (0, 1)),
        ("SUSPENDED", None, (None, ""), (None, 1)),
    ],
)
def test_how_a_job_ends_with_and_without_a_sweep_to_see_it(
    slurm: Slurm, state: str, left: int | None, watched: tuple[int | None, str], unwatched: tuple[int | None, int]
) -> None:
    trial = slurm.trial()
    assert trial.start()
    slurm.ends("1", state, left, "step 1\nerror: no such camera\n")
    # Without: the next sweep takes the result, or submits the trial again.
    record = (slurm.folder / "submitted.json").read_text()
    later = slurm.trial()
    assert later.start()
    assert (later.poll(), len(slurm.queued)) == unwatched
    # With: what the sweep is told, and then the next start is one.
    if len(slurm.queued) == 1:
        (slurm.folder / "submitted.json").write_text(record)
        assert (trial.poll(), trial.last_words()) == watched
        if watched[0]:
            assert slurm.trial().start()
            assert len(slurm.queued) == 2
    else:
        assert (trial.poll(), trial.last_words()) == watched


def test_no_answer_is_no_news(slurm: Slurm) -> None:
    trial = slurm.trial()
    slurm.answers = False
    assert not trial.start()
    assert trial.obstacle == "squeue does not answer, waiting"
    slurm.answers = True
    assert trial.start()
    slurm.answers = False
    assert trial.poll() is None
    assert Submitted.read(slurm.folder) == trial._now


def test_the_first_refusal_ends_the_sweep_and_later_ones_are_waited_out(slurm: Slurm) -> None:
    slurm.takes = False
    with pytest.raises(ValueError, match="too many jobs"):
        slurm.trial().start()
    slurm.takes = True
    assert slurm.trial().start()
    slurm.ends("1", "FAILED", 1)
    slurm.takes, slurm.queue.seconds = False, 60
    slurm.queue.jobs(fresh=True)
    (slurm.folder / "submitted.json").unlink()
    trial = slurm.trial()
    assert not trial.start()
    slurm.takes = True
    assert not trial.start(), "Slurm is left alone for a while"


def test_a_sweep_that_is_stopped_leaves_its_jobs_and_one_of_processes_keeps_off(
    slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = [f"paths.runs={tmp_path}", "name=x", *SPACE[:2], "sweep.objective.key=loss", "sweep.poll_seconds=0.01"]
    there = [*here, *SPACE[2:]]
    slurm.asked = signal.SIGTERM
    with pytest.raises(SystemExit) as stopped:
        run_command(compose_config("sweep", there))
    assert stopped.value.code == REQUEUE_EXIT_CODE
    assert [job.state for job in slurm.queued.values()] == ["PENDING"]
    with pytest.raises(ValueError, match=r"trials 0 run as Slurm jobs; .* scancel 1$"):
        run_command(compose_config("sweep", [*here, "sweep.command=[/bin/true]"]))
    capsys.readouterr()
    run_command(compose_config("sweep", [*there, "sweep.status=true"]))
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 running of 1 trials")
