"""What a query may attend to, described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from cami2v.batch import Movable


class AttentionMask(Movable, ABC):
    """A description of the keys that every query may attend to.

    Register tokens, which everybody sees, are no part of it: `attend` is told how many lead the keys.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Return batch, queries, keys."""

    @abstractmethod
    def dense(self) -> Bool[Tensor, "batch queries keys"]:
        """Write the mask out, True where the query may attend to the key: for tests and comparisons only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseMask(AttentionMask):
    """A mask that is written out already, such as a stored one: the reference of tests and of tools.parity."""

    allowed: Bool[Tensor, "batch queries keys"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return batch, queries, keys."""
        batch, queries, keys = self.allowed.shape
        return batch, queries, keys

    def dense(self) -> Bool[Tensor, "batch queries keys"]:
        """Return it as it is."""
        return self.allowed
