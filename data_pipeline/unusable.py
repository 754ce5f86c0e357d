"""Clips that a shard holds but nobody can train on, by reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Unusable(StrEnum):
    """Why a stored clip cannot be used."""

    MEMBER_MISSING = "member_missing"
    MEMBER_DAMAGED = "member_damaged"
    """Bytes differ from the shard's index."""
    NOT_A_CLIP = "not_a_clip"
    """Intact bytes that do not follow docs/data-format.md."""
    NOT_DECODABLE = "not_decodable"
    TOO_SHORT = "too_short"


class UnusableClip(ValueError):
    """A stored clip that cannot be used; the message is one line that names shard and sample key.

    For what is wrong with the clip's own bytes only: a file that cannot be opened or fetched may be there the next
    time, and what depends on that would not be the same after a resume.
    """

    def __init__(self, reason: Unusable, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def unusable(reason: Unusable, where: str) -> Iterator[None]:
    """Give ValueErrors raised inside a reason, and the clip's name where they lack it."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        raise UnusableClip(reason, message if where in message else f"{where}: {message}") from error
