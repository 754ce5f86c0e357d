"""The models that a visitor can choose, and those few that are in memory."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from cami2v.inference.pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A checkpoint of a camera-control method."""

    method: str
    checkpoint: str
    load: Callable[[], Pipeline]
    note: str
    """What a visitor must know of it; shown above everything else. Empty: nothing."""

    @property
    def name(self) -> str:
        """Return what it is called."""
        return f"{self.method}, {self.checkpoint}"


class HeldModels:
    """Loads models when they are needed and holds `most` of them; the one that was unused longest goes first.

    One user at a time: whoever uses a model has the whole device.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"held_models={most}: must be at least 1")
        self.most = most
        self._held: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def names(self) -> list[str]:
        """Return what is held, the longest unused first."""
        return list(self._held)

    @contextmanager
    def using(self, name: str, load: Callable[[], Any]) -> Iterator[Any]:
        """Have a model for as long as it is used. Raises what `load` raises; room was made by then."""
        with self._lock:
            if name not in self._held:
                # Before the next one comes: there may be room for one only.
                self._release(self.most - 1)
                self._held[name] = load()
            self._held.move_to_end(name)
            yield self._held[name]

    def _release(self, leave: int) -> None:
        if len(self._held) <= leave:
            return
        while len(self._held) > leave:
            self._held.popitem(last=False)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def methods_of(choices: list[ModelChoice]) -> dict[str, list[str]]:
    """Return the checkpoints of every method, in order."""
    found: dict[str, list[str]] = {}
    for choice in choices:
        found.setdefault(choice.method, []).append(choice.checkpoint)
    return found
