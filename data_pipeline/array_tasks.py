"""Which share of the work one of several tasks does, such as those of a Slurm job array."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Task number `task`, from 0, of `tasks`."""

    task: int
    tasks: int

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return this task's items: every item is in exactly one share, shares differ by one item at most."""
        return list(items[self.task :: self.tasks])

    def starting_with_mine(self, items: Sequence[Item]) -> list[Item]:
        """Return all items, beginning where this task's part of them begins, so that tasks meet late."""
        start = len(items) * self.task // self.tasks
        return [*items[start:], *items[:start]]


def share_of(
    task: int | None, tasks: int | None, environment: Mapping[str, str] = os.environ, settings: str = "pack"
) -> Share:
    """Return the share that `<settings>.task` and `.tasks` give; what is null comes from Slurm's job array, if in one.

    Raises ValueError for a task outside 0 .. tasks-1, a task without tasks, and a job array with gaps.
    """
    given = environment.get("SLURM_ARRAY_TASK_ID")
    if tasks is None:
        if task is not None:
            raise ValueError(f"{settings}.task={task}: is one of how many? set {settings}.tasks=<n> as well")
        return Share(task=0, tasks=1) if given is None else _array_share(int(given), environment, settings)
    if tasks < 1:
        raise ValueError(f"{settings}.tasks={tasks}: must be at least 1")
    if task is None:
        if tasks > 1 and given is None:
            raise ValueError(
                f"{settings}.tasks={tasks}: which of them is this? set {settings}.task=<0 to {tasks - 1}> as well"
            )
        task = 0 if tasks == 1 or given is None else int(given)
    if not 0 <= task < tasks:
        raise ValueError(f"{settings}.task={task}: must be from 0 to {tasks - 1} with {settings}.tasks={tasks}")
    return Share(task=task, tasks=tasks)


def _array_share(given: int, environment: Mapping[str, str], settings: str) -> Share:
    count = int(environment.get("SLURM_ARRAY_TASK_COUNT", "1"))
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", given if count == 1 else "0"))
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    last = int(environment.get("SLURM_ARRAY_TASK_MAX", first + (count - 1) * step))
    if (last - first) // step + 1 != count or (given - first) % step or not 0 <= (given - first) // step < count:
        raise ValueError(
            f"SLURM_ARRAY_TASK_ID={given}: {count} tasks from {first} to {last} have gaps, so their shares are not "
            f"known; set {settings}.tasks=<number of tasks of the first submission>"
        )
    return Share(task=(given - first) // step, tasks=count)
