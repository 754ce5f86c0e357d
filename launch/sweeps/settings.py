"""Settings of a sweep, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """The number that a trial is judged by."""

    source: Literal["metrics", "evaluation"]
    key: str
    reduce: Literal["minimum", "maximum", "last"]
    direction: Literal["minimize", "maximize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningSettings:
    """When a trial that does badly is ended early."""

    kind: Literal["none", "median", "hyperband"]
    key: str | None
    warmup_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """The keys of `sweep`."""

    fixed: Sequence[str]
    overrides: Sequence[str]
    space: Mapping[str, Any]
    sampler: Literal["grid", "random", "tpe"]
    trials: int | None
    hours: float | None
    startup_trials: int
    objective: ObjectiveSettings
    evaluate: Sequence[str]
    pruning: PruningSettings
    parallel: int
    devices: Sequence[str | int]
    trial_cluster: Any
    """None, or a node that describes a cluster."""
    queue_seconds: float
    retries: int
    command: Sequence[str] | None
    poll_seconds: float
    dry_run: bool
    status: bool

    def validate(self) -> None:
        """Raise ValueError for what cannot be swept."""
        for name in ("trials", "parallel"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"sweep.{name}={value}: must be at least 1")
        for name in ("hours", "poll_seconds", "queue_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"sweep.{name}={value}: must be above 0")
        for name in ("retries", "startup_trials"):
            if getattr(self, name) < 0:
                raise ValueError(f"sweep.{name}={getattr(self, name)}: must be at least 0")
        if self.trials is None and self.sampler != "grid" and self.space:
            raise ValueError(f"sweep.trials: required with sweep.sampler={self.sampler}, write sweep.trials=<number>")
        if self.devices and self.parallel > len(self.devices):
            raise ValueError(
                f"sweep.parallel={self.parallel}: but sweep.devices names {len(self.devices)}; a trial takes one entry"
            )
        for name in ("devices", "command"):
            if self.trial_cluster is not None and getattr(self, name):
                raise ValueError(
                    f"sweep.{name}={list(getattr(self, name))}: for trials of this machine; Slurm jobs have the "
                    "settings of sweep.trial_cluster"
                )
        if self.command is not None and not self.command:
            raise ValueError("sweep.command=[]: expected a program and its arguments, or null for cami2v train")
        if self.evaluate and self.objective.source != "evaluation":
            raise ValueError("sweep.evaluate: nothing is evaluated unless sweep.objective.source=evaluation")
        if self.pruning.kind != "none" and self.objective.source == "evaluation" and self.pruning.key is None:
            raise ValueError(
                f"sweep.pruning.kind={self.pruning.kind}: the objective is known only at the end of a trial; name a "
                "key of metrics.jsonl to prune by: sweep.pruning.key=validation_loss"
            )

    @property
    def base(self) -> list[str]:
        """What all trials share."""
        return [*self.fixed, *self.overrides]

    @property
    def pruning_key(self) -> str:
        """The key of metrics.jsonl that running trials are compared by."""
        return self.pruning.key or self.objective.key
