"""The state of a sweep: an Optuna study in a file of the sweep's folder. Only one process writes it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from launch.sweeps.settings import SweepSettings
from launch.sweeps.space import Parameters, Space, describe, grid

NAME = "sweep"
DATABASE = "study.db"
_DEFINITION = "definition"
_LOCKED_SECONDS = 60

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SweepStudy:
    """Ask for trials and tell what became of them; whatever was told survives the process."""

    def __init__(self, settings: SweepSettings, space: Space, seed: int, folder: Path | None) -> None:
        """Open the study in `folder`, or make it; None: in memory.

        Raises ValueError where the one that is there searches another space or for something else.
        """
        self.settings = settings
        self.space = space
        self.seed = seed
        self.combinations = grid(space) if settings.sampler == "grid" else []
        storage: optuna.storages.BaseStorage = optuna.storages.InMemoryStorage()
        if folder is not None:
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / DATABASE}", engine_kwargs={"connect_args": {"timeout": _LOCKED_SECONDS}}
            )
        self.study = optuna.create_study(
            storage=storage, study_name=NAME, direction=settings.objective.direction, load_if_exists=True,
            sampler=self._sampler(0), pruner=_pruner(settings),
        )  # fmt: skip
        self._claim(folder)

    @property
    def budget(self) -> int:
        """How many trials there will be, failed ones included."""
        limit = self.settings.trials
        if self.settings.sampler == "grid":
            return len(self.combinations) if limit is None else min(limit, len(self.combinations))
        assert limit is not None
        return limit

    def trials(self) -> list[FrozenTrial]:
        """Return every trial that was begun, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def unfinished(self) -> list[int]:
        """Return the numbers of trials that were begun and have no result."""
        return [trial.number for trial in self.trials() if trial.state == TrialState.RUNNING]

    def ask(self) -> Trial | None:
        """Begin the next trial; None where the budget is spent.

        Its values depend on the seed, its number and what is known by now, not on how often the sweep was restarted.
        """
        begun = len(self.trials())
        if begun >= self.budget:
            return None
        if self.combinations and len(self.study.get_trials(deepcopy=False)) <= begun:
            self.study.enqueue_trial(self.combinations[begun])
        self.study.sampler = self._sampler(begun)
        return self.study.ask(self.space)

    def again(self, number: int) -> Trial:
        """Take up a trial that was begun and has no result."""
        frozen = next(trial for trial in self.trials() if trial.number == number)
        self.study.sampler = self._sampler(number)
        return Trial(self.study, frozen._trial_id)

    def parameters(self, trial: Trial) -> Parameters:
        """Return the values of a trial, drawing those that a kill has prevented."""
        return {key: _suggest(trial, key, distribution) for key, distribution in self.space.items()}

    def finish(self, trial: Trial, value: float) -> None:
        """Record the result of a trial."""
        self.study.tell(trial.number, value)

    def fail(self, trial: Trial, reason: str) -> None:
        """Record that a trial has none, and why."""
        trial.set_user_attr("reason", reason)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def prune(self, trial: Trial) -> None:
        """Record that a trial was ended early."""
        self.study.tell(trial.number, state=TrialState.PRUNED)

    def _sampler(self, number: int) -> BaseSampler:
        # Of its own for each trial: a restarted sweep must not draw the first values again.
        seed = (self.seed * 1_000_003 + number) % 2**32
        if self.settings.sampler != "tpe":
            return RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Trials that still run count as bad ones, so that parallel ones differ.
            return TPESampler(seed=seed, n_startup_trials=self.settings.startup_trials, constant_liar=True)

    def _claim(self, folder: Path | None) -> None:
        """Hold the study against what this sweep looks for."""
        definition: dict[str, Any] = {
            "space": {key: describe(distribution) for key, distribution in self.space.items()},
            "sampler": "grid" if self.settings.sampler == "grid" else "random or tpe",
            "objective": f"{self.settings.objective}",
            "fixed": self.settings.base,
            "evaluate": list(self.settings.evaluate),
        }
        before = self.study.user_attrs.get(_DEFINITION)
        if before is None:
            self.study.set_user_attr(_DEFINITION, definition)
            return
        for key, value in definition.items():
            if before.get(key) != value:
                raise ValueError(
                    f"{folder}: holds a sweep with another sweep.{key} ({json.dumps(before.get(key))}, now "
                    f"{json.dumps(value)}); its trials do not compare: start under another name=..."
                )


def _suggest(trial: Trial, key: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _pruner(settings: SweepSettings) -> BasePruner:
    if settings.pruning.kind == "median":
        return MedianPruner(
            n_startup_trials=settings.startup_trials, n_warmup_steps=settings.pruning.warmup_steps, n_min_trials=1
        )
    if settings.pruning.kind == "hyperband":
        return HyperbandPruner(min_resource=max(1, settings.pruning.warmup_steps))
    return NopPruner()
