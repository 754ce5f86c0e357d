"""Settings of a Slurm job, checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The image that every task runs in."""

    image: str | None
    program: Literal["pyxis", "apptainer"]
    mounts: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    """The keys of conf/cluster/slurm.yaml; null leaves a thing to the cluster."""

    name: str | None
    nodes: int
    gpus_per_node: int | str | None
    tasks_per_node: int | None
    cpus_per_task: int | None
    memory: str | int | None
    time: str | int | None
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    sbatch: Sequence[str]
    srun: Sequence[str]
    container: Container
    setup: Sequence[str]
    python: str | None
    environment: Mapping[str, str | int | None]
    requeue: bool
    max_requeues: int
    requeue_after_crash: bool
    signal_seconds: int
    array: int | None
    array_at_once: int | None
    check: bool
    submit: bool

    def __post_init__(self) -> None:
        """Raise ValueError for what no script can say."""
        for key in ("nodes", "tasks_per_node", "cpus_per_task", "signal_seconds", "array", "array_at_once"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"cluster.{key}={value}: must be at least 1")
        if self.max_requeues < 0:
            raise ValueError(f"cluster.max_requeues={self.max_requeues}: must be at least 0")
        if isinstance(self.time, int):
            raise ValueError(
                f"cluster.time={self.time}: Slurm's notation, as text, is hh:mm:ss or days-hh:mm:ss; "
                "in a YAML file in quotes"
            )
        if not re.fullmatch(r"([\w.-]+:)?\d+", str(self.gpus_per_node or 0)):
            raise ValueError(f"cluster.gpus_per_node={self.gpus_per_node}: expected a number or <type>:<number>")
        words = [getattr(self, key) for key in ("name", "memory", "time", "partition", "account", "qos", "constraint")]
        words += [*self.sbatch, *self.srun, *self.setup, self.container.image, *self.container.mounts, self.python]
        words += self.environment.values()
        broken = next((word for word in words if "\n" in str(word)), None)
        if broken is not None:
            raise ValueError(f"cluster: {broken!r} has a line break; setup and sbatch take a list, one line an item")
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(f"cluster.environment.{name}: not a name of an environment variable")

    @property
    def processes_per_node(self) -> int:
        """One per GPU unless it is said otherwise."""
        if self.tasks_per_node is not None:
            return self.tasks_per_node
        return max(1, int(str(self.gpus_per_node or 0).rpartition(":")[2]))
