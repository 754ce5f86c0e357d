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
from launch.sweeps.folder import SweepFolder
from launch.sweeps.objective import EVALUATION
from launch.sweeps.report import write_report
from launch.sweeps.run import Sweep
from launch.sweeps.settings import SweepSettings
from launch.sweeps.space import SET_BY_THE_SWEEP, Parameters, Space, describe, overrides, probes, read_space
from launch.sweeps.study import SweepStudy
from launch.sweeps.table import markdown, summary
from launch.train import prepare

logger = logging.getLogger(__name__)

TRAIN = (sys.executable, "-m", "launch.train")
EVALUATE = (sys.executable, "-m", "launch.evaluate")
FILES = "~/.cache/cami2v/sweeps"
"""Sweep files are found by Hydra through a copy here, named by content."""


def run(config: DictConfig) -> None:
    """Check every value of the space, then run the trials that are left; print and write the table."""
    sweep = settings(config.sweep, SweepSettings, "sweep")
    space = read_space(sweep.space)
    folder = SweepFolder(Path(plain(config.paths)["runs"], "sweeps", plain(config)["name"]).expanduser().resolve())
    if sweep.status:
        if not folder.exists:
            raise ValueError(f"{folder.path}: no sweep was begun here")
        study = SweepStudy(sweep, space, config.seed, folder.path)
        _show(config, sweep, space, folder, study, busy=folder.busy())
        return
    _check(sweep, space, folder)
    if sweep.dry_run:
        _dry_run(sweep, space, config.seed, folder)
        return
    with folder.claimed():
        study = SweepStudy(sweep, space, config.seed, folder.path)
        left = study.budget - len(study.trials()) + len(study.unfinished())
        logger.info("%s: %d trials, %d of them to run", folder.path, study.budget, left)

        def commands(number: int, parameters: Parameters) -> list[list[str]]:
            return trial_commands(sweep, parameters, folder.run(number))

        stop = Sweep(settings=sweep, study=study, folder=folder, commands=commands).run()
        _show(config, sweep, space, folder, study, busy=False)
    if stop:
        logger.info("stopped; the same command continues")
        raise SystemExit(stop.exit_code)


def trial_commands(sweep: SweepSettings, parameters: Parameters, run: Path) -> list[list[str]]:
    """Return what a trial runs, the same at every start."""
    place = overrides({"paths.runs": str(run.parent), "name": run.name})
    commands = [[*(sweep.command or TRAIN), *sweep.base, *overrides(parameters), *place, "resume=auto"]]
    if sweep.objective.source == "evaluation":
        judged = overrides({"checkpoint": str(run), "output": str(run / EVALUATION)})
        commands.append([*EVALUATE, *sweep.evaluate, *judged])
    return commands


def _check(sweep: SweepSettings, space: Space, folder: SweepFolder) -> None:
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
            if sweep.command is None and not sweep.dry_run:
                # Under a name that no trial has: what is in their folders is their own matter.
                trial.name, trial.paths.runs = f"{folder.path.name}-check", str(folder.path.parent)
                prepare(trial)
        except ValueError as error:
            raise ValueError(f"a trial with {' '.join(overrides(parameters))}: {error}") from error
    if sweep.objective.source == "evaluation":
        try:
            compose_config("evaluate", sweep.evaluate)
        except ValueError as error:
            raise ValueError(f"sweep.evaluate: {error}") from error


def _dry_run(sweep: SweepSettings, space: Space, seed: int, folder: SweepFolder) -> None:
    """Print the trials that are known before anything has run."""
    study = SweepStudy(sweep, space, seed, None)
    known = min(study.budget, sweep.startup_trials) if sweep.sampler == "tpe" else study.budget
    print(f"{folder.path}: {study.budget} trials, {sweep.parallel} at once, sampler {sweep.sampler}")
    for key, distribution in space.items():
        print(f"  {key}: {describe(distribution)}")
    for number in range(known):
        trial = study.ask()
        assert trial is not None
        print(f"trial {number}: {' '.join(overrides(study.parameters(trial)))}")
    if known < study.budget:
        print(f"trials {known} to {study.budget - 1}: chosen by the results of the earlier ones")


def _show(
    config: DictConfig, sweep: SweepSettings, space: Space, folder: SweepFolder, study: SweepStudy, *, busy: bool
) -> None:
    table = folder.write_tables(study, busy=busy)
    page = folder.path / "report.html"
    shown = [replace(row, folder=Path(row.folder).name, reason=_short(row.reason)) for row in table]
    write_report(page, plain(config)["name"], sweep.objective, space, shown)
    print(markdown(shown), end="")
    print(f"{summary(table)} of {study.budget} trials; {page}, trials.csv, trials.json, trials.md")


def _short(reason: str | None, width: int = 80) -> str | None:
    return reason if reason is None or len(reason) <= width else f"{reason[: width - 3]}..."


def with_file(arguments: Sequence[str]) -> list[str]:
    """Let `sweep=<file.yaml>` name a file anywhere. Raises ValueError where it is neither a file nor a preset."""
    options: list[str] = []
    found = []
    for argument in arguments:
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
        sys.argv[1:] = with_file(sys.argv[1:])
    except ValueError as error:
        fail(error)
    _main()


if __name__ == "__main__":
    main()
