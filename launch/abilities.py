"""What a batch job must know of each verb: whether it saves when asked, continues, and shares its work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """How a verb behaves as a job."""

    saves_when_asked: bool = False
    """Upon USR1 it saves and ends with REQUEUE_EXIT_CODE; others are ended."""
    continues: bool = False
    """The same command goes on where it was stopped."""
    several_processes: bool = False
    """It reads RANK and WORLD_SIZE."""
    tasks_key: str | None = None
    """The key that says among how many tasks of a job array the work is shared."""


ABILITIES = {
    "train": Ability(saves_when_asked=True, continues=True, several_processes=True),
    "sweep": Ability(saves_when_asked=True, continues=True),
    "evaluate": Ability(continues=True, several_processes=True, tasks_key="evaluation.tasks"),
    "pack": Ability(continues=True, tasks_key="pack.tasks"),
    "data_download": Ability(continues=True),
    "data_clips": Ability(continues=True, tasks_key="clips.tasks"),
    "data_caption": Ability(continues=True, tasks_key="caption.tasks"),
    "data_encode": Ability(continues=True, tasks_key="encode.tasks"),
}


def ability_of(verb: str) -> Ability:
    """Return what is known of a verb; one that is not listed runs once, as one process."""
    return ABILITIES.get(verb, Ability())
