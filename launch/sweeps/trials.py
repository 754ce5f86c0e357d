"""How the trials of a sweep are started: as processes of this machine, or as Slurm jobs."""

from __future__ import annotations

import sys
from pathlib import Path

from launch.compose import instantiate_part
from launch.slurm import Slurm
from launch.slurm_script import Job
from launch.sweeps.folder import SweepFolder
from launch.sweeps.objective import EVALUATION
from launch.sweeps.settings import SweepSettings
from launch.sweeps.slurm_queue import SlurmQueue
from launch.sweeps.slurm_trial import FOLDER, SlurmTrial, running_jobs
from launch.sweeps.space import Parameters, overrides
from launch.sweeps.study import SweepStudy
from launch.sweeps.trial import TrialCommand, TrialRun, Trials
from launch.sweeps.trial_process import TrialJob, TrialProcess


def trial_commands(sweep: SweepSettings, parameters: Parameters, run: Path) -> list[TrialCommand]:
    """Return what a trial runs, the same at every start."""
    place = overrides({"paths.runs": str(run.parent), "name": run.name})
    commands = [TrialCommand(verb="train", arguments=[*sweep.base, *overrides(parameters), *place, "resume=auto"])]
    if sweep.objective.source == "evaluation":
        judged = overrides({"checkpoint": str(run), "output": str(run / EVALUATION)})
        commands.append(TrialCommand(verb="evaluate", arguments=[*sweep.evaluate, *judged]))
    return commands


def local_trials(sweep: SweepSettings, folder: SweepFolder, study: SweepStudy) -> Trials:
    """Return what makes processes of trials. Raises ValueError where some are Slurm jobs that still run."""
    jobs = running_jobs({number: folder.run(number) for number in study.unfinished()}, SlurmQueue(sweep.queue_seconds))
    if jobs:
        raise ValueError(
            f"{folder.path}: trials {', '.join(map(str, jobs))} run as Slurm jobs; follow them with "
            f"sweep.trial_cluster=slurm, or end them first: scancel {' '.join(jobs.values())}"
        )

    def trial(number: int, parameters: Parameters, slot: int) -> TrialRun:
        starts = {"train": sweep.command or [sys.executable, "-m", "launch.train"]}
        commands = [
            [*starts.get(command.verb, [sys.executable, "-m", f"launch.{command.verb}"]), *command.arguments]
            for command in trial_commands(sweep, parameters, folder.run(number))
        ]
        device = str(sweep.devices[slot]) if sweep.devices else None
        return TrialProcess(
            TrialJob(commands=commands, log=folder.log(number), lock=folder.trial_lock(number), device=device)
        )

    return trial


def slurm_trials(sweep: SweepSettings, cluster: Slurm, folder: SweepFolder) -> Trials:
    """Return what makes Slurm jobs of trials."""
    queue = SlurmQueue(sweep.queue_seconds)

    def trial(number: int, parameters: Parameters, slot: int) -> TrialRun:
        run = folder.run(number)
        return SlurmTrial(
            cluster=cluster, jobs=lambda: trial_jobs(sweep, cluster, parameters, run), folder=run / FOLDER,
            queue=queue, lock=folder.trial_lock(number),
        )  # fmt: skip

    return trial


def trial_jobs(sweep: SweepSettings, cluster: Slurm, parameters: Parameters, run: Path) -> list[Job]:
    """Describe the commands of a trial as jobs; what is wrong with its settings is the job's to find."""
    name = f"{cluster.name or run.parents[1].name}-{run.name}"
    return [
        cluster.job(command.verb, None, command.arguments, folder=run / FOLDER, name=name, followed=True)
        for command in trial_commands(sweep, parameters, run)
    ]


def trial_cluster(sweep: SweepSettings) -> Slurm | None:
    """Build `sweep.trial_cluster`. Raises ValueError for what no trial could be."""
    if sweep.trial_cluster is None:
        return None
    try:
        cluster = instantiate_part(sweep.trial_cluster, "sweep.trial_cluster")
    except ValueError as error:
        text = str(error)
        raise ValueError(text if "sweep.trial_cluster" in text else f"sweep.trial_{text}") from error
    if not isinstance(cluster, Slurm) or not cluster.submit or cluster.array is not None:
        raise ValueError(
            "sweep.trial_cluster: expected a preset for Slurm, with submit=true and array=null: every trial is one "
            "job that the sweep submits (sweep.dry_run=true prints the first one's script)"
        )
    return cluster
