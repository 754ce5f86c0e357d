"""What the loop of a sweep asks of a trial that runs, wherever it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cami2v.training.preemption import StopRequest
from launch.sweeps.space import Parameters

HEAD = "== "
"""Begins the lines of a trial's log that the sweep has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCommand:
    """One of the commands that a trial runs, one after the other."""

    verb: str
    arguments: Sequence[str]


class TrialRun(Protocol):
    """A trial, from one start to the end of its last command or the first that fails."""

    @property
    def adopted(self) -> bool:
        """Whether it ran already when this sweep began."""

    @property
    def obstacle(self) -> str:
        """Why `start` has answered no."""

    @property
    def place(self) -> str:
        """What runs it, to be shown."""

    @property
    def log(self) -> str:
        """Path of what its processes say."""

    @property
    def seconds(self) -> float:
        """Time since this start."""

    def start(self) -> bool:
        """Start it, or take over the one that runs; false where that is not possible yet."""

    def poll(self) -> int | None:
        """Return the exit code once it has ended, starting its next command where one has gone well."""

    def end(self) -> None:
        """Ask it to save and end, also where an earlier sweep has started it."""

    def leave(self, asked: StopRequest) -> bool:
        """Learn that the sweep stops; tell whether the trial ends with it, after it has saved."""

    def last_words(self) -> str:
        """Return what says best why it ended."""


Trials = Callable[[int, Parameters, int], TrialRun]
"""Trial number, parameters, and which of the sweep's places it takes -> the trial, not started."""


def last_error(text: str) -> str:
    """Return the line of a log that says best what went wrong: the last error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(HEAD)]
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else lines[-1] if lines else "said nothing"
