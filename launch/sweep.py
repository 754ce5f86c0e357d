"""`cami2v sweep`: a search over settings of `cami2v train`; stopped or killed, the same command continues it."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from launch.compose import check_parts, compose_config, conf_folder, entry, plain, settings
from launch.errors import fail
from launch.slurm import Slurm
from launch.slurm_script import script
from launch.sweeps.folder import SweepFolder
from launch.sweeps.importance import importances
from launch.sweeps.report import write_report
from launch.sweeps.run import Sweep
from launch.sweeps.settings import SweepSettings
from launch.sweeps.slurm_queue import SlurmQueue
from launch.sweeps.slurm_trial import running_jobs
from launch.sweeps.space import SET_BY_THE_SWEEP, Space, describe, overrides, probes, read_space
from launch.sweeps.study import SweepStudy
from launch.sweeps.table import markdown, summary
from launch.sweeps.trials import local_trials, slurm_trials, trial_cluster, trial_jobs
from launch.train import prepare

logger = logging.getLogger(__name__)

FILES = "~/.cache/cami2v/sweeps"
"""Sweep files are found by Hydra through a copy here, named by content."""


def run(config: DictConfig) -> None:
    """Check every value of the space, then run the trials that are left; print and write the table."""
    sweep = settings(config.sweep, SweepSettings, "sweep")
    space = read_space(sweep.space)
    folder = SweepFolder(Path(plain(config.paths)["runs"], "sweeps", plain(config)["name"]).expanduser().resolve())
    cluster = trial_cluster(sweep)
    if sweep.status:
        if not folder.exists:
            raise ValueError(f"{folder.path}: no sweep was begun here")
        study = SweepStudy(sweep, space, config.seed, folder.path)
        _show(config, sweep, space, folder, study, busy=folder.busy())
        return
    _check(sweep, cluster, space, folder)
    if sweep.dry_run:
        _dry_run(sweep, cluster, space, config.seed, folder)
        return
    with folder.claimed():
        study = SweepStudy(sweep, space, config.seed, folder.path)
        left = study.budget - len(study.trials()) + len(study.unfinished())
        logger.info("%s: %d trials, %d of them to run", folder.path, study.budget, left)
        trials = local_trials(sweep, folder, study) if cluster is None else slurm_trials(sweep, cluster, folder)
        stop = Sweep(settings=sweep, study=study, folder=folder, trials=trials).run()
        _show(config, sweep, space, folder, study, busy=False)
    if stop:
        logger.info("stopped; the same command continues")
        raise SystemExit(stop.exit_code)


def _check(sweep: SweepSettings, cluster: Slurm | None, space: Space, folder: SweepFolder) -> None:
    """Raise ValueError, before anything runs, for a trial that could not be composed."""
    for key, items in (("fixed", sweep.fixed), ("overrides", sweep.overrides), ("evaluate", sweep.evaluate)):
        for item in items:
            name = item.lstrip("+~").partition("=")[0]
            if name in (*SET_BY_THE_SWEEP, "checkpoint", "output") and item != "cluster=local":
                raise ValueError(f"sweep.{key}: {item} is set by the sweep for every trial, remove it")
    if sweep.command is not None and shutil.which(sweep.command[0]) is None:
        raise ValueError(f"sweep.command: there is no program {sweep.command[0]!r} on this machine's PATH")
    for parameters in probes(space):
        given = [*sweep.base, *overrides(parameters)]
        try:
            trial = compose_config("train", given)
            check_parts(trial)
            # Under a name that no trial has: what is in their folders is their own matter.
            trial.name, trial.paths.runs = f"{folder.path.name}-check", str(folder.path.parent)
            if cluster is not None:
                cluster.job("train", trial, given)
            elif sweep.command is None and not sweep.dry_run:
                prepare(trial)
        except ValueError as error:
            raise ValueError(f"a trial with {' '.join(overrides(parameters))}: {error}") from error
    if sweep.objective.source == "evaluation":
        try:
            compose_config("evaluate", sweep.evaluate)
        except ValueError as error:
            raise ValueError(f"sweep.evaluate: {error}") from error


def _dry_run(sweep: SweepSettings, cluster: Slurm | None, space: Space, seed: int, folder: SweepFolder) -> None:
    """Print the trials that are known before anything has run."""
    study = SweepStudy(sweep, space, seed, None)
    known = min(study.budget, sweep.startup_trials) if sweep.sampler == "tpe" else study.budget
    scripts: list[str] = []
    print(f"{folder.path}: {study.budget} trials, {sweep.parallel} at once, sampler {sweep.sampler}")
    for key, distribution in space.items():
        print(f"  {key}: {describe(distribution)}")
    for number in range(known):
        trial = study.ask()
        assert trial is not None
        parameters = study.parameters(trial)
        print(f"trial {number}: {' '.join(overrides(parameters))}")
        if cluster is not None and number == 0:
            scripts = [script(job, cluster) for job in trial_jobs(sweep, cluster, parameters, folder.run(number))]
    if known < study.budget:
        print(f"trials {known} to {study.budget - 1}: chosen by the results of the earlier ones")
    print(*(f"\nits script, for trial 0:\n{text}" for text in scripts), sep="")


def _show(
    config: DictConfig, sweep: SweepSettings, space: Space, folder: SweepFolder, study: SweepStudy, *, busy: bool
) -> None:
    runs = {number: folder.run(number) for number in study.unfinished()}
    table = folder.write_tables(study, busy=busy, running=running_jobs(runs, SlurmQueue(sweep.queue_seconds)))
    page = folder.path / "report.html"
    shown = [replace(row, folder=Path(row.folder).name, reason=_short(row.reason)) for row in table]
    importance = importances(study.study)
    write_report(page, plain(config)["name"], sweep.objective, space, shown, importance)
    print(markdown(shown), end="")
    if importance is not None:
        print(f"importance: {', '.join(f'{key} {share:.2f}' for key, share in importance.items())}")
    print(f"{summary(table)} of {study.budget} trials; {page}, trials.csv, trials.json, trials.md")


def _short(reason: str | None, width: int = 80) -> str | None:
    return reason if reason is None or len(reason) <= width else f"{reason[: width - 3]}..."


def with_shorthands(arguments: Sequence[str]) -> list[str]:
    """Let `sweep=<file.yaml>` name a file anywhere, and `sweep.trial_cluster=` a preset of conf/cluster.

    Raises ValueError where the sweep is neither a file nor a preset.
    """
    options: list[str] = []
    found = []
    for argument in arguments:
        if argument.startswith("sweep.trial_cluster="):
            argument = f"cluster@{argument}"
        value = argument.removeprefix("sweep=")
        if value == argument or not re.search(r"\.ya?ml$|/", value):
            found.append(argument)
            continue
        file = Path(value).expanduser()
        if not file.is_file():
            presets = ", ".join(sorted(path.stem for path in (conf_folder() / "sweep").glob("*.yaml")))
            raise ValueError(f"sweep={value}: there is no such file (presets: {presets})")
        content = file.read_bytes()
        copy = Path(FILES).expanduser() / hashlib.sha256(content).hexdigest()[:16] / "sweep" / f"{file.stem}.yaml"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        options = ["--config-dir", str(copy.parents[1])]
        found.append(f"sweep={file.stem}")
    return [*options, *found]


_main = entry("sweep")(run)


def main() -> None:
    """Run `cami2v sweep`."""
    try:
        sys.argv[1:] = with_shorthands(sys.argv[1:])
    except ValueError as error:
        fail(error)
    _main()


if __name__ == "__main__":
    main()
