"""Batches on the device before the step that takes them: fetched and copied while the step before it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from cami2v.batch import Movable, Moved, TrainingBatch

Arrival = Callable[[], TrainingBatch]
"""Has the current stream wait for a copy, and returns it."""

Copy = Callable[[TrainingBatch], Arrival]
"""Starts to copy a batch to the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A batch as the loader gave it, and where the step wants it."""

    batch: TrainingBatch
    on_device: TrainingBatch


class Deliveries:
    """The next `count` batches of a loader, each brought to the device by `copy` while the one before it is in use.

    One batch is ahead, in a thread: it changes neither which batch comes when, nor at which call an error of the loader
    is raised, and nothing is read that no call can ask for. Without `copy` there is no thread and no copy.
    """

    def __init__(self, batches: Iterator[TrainingBatch], *, count: int, copy: Copy | None) -> None:
        self._batches = batches
        self._left = count
        self._copy = copy
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") if copy is not None else None
        self._ahead: Future[tuple[TrainingBatch, Arrival]] | None = None

    def __enter__(self) -> Deliveries:
        """Return these deliveries, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of what is ahead; returns when nobody reads from the loader any more."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def next(self) -> Delivered:
        """Return the next batch; raises what the loader raised for it."""
        if self._copy is None or self._thread is None:
            batch = next(self._batches)
            return Delivered(batch=batch, on_device=batch)
        # The first one comes from here: loaders start their workers where they are asked first, and only in the main
        # thread can they see to the signals that those share.
        batch, arrive = self._fetch(self._copy) if self._ahead is None else self._ahead.result()
        self._left -= 1
        self._ahead = self._thread.submit(self._fetch, self._copy) if self._left > 0 else None
        return Delivered(batch=batch, on_device=arrive())

    def _fetch(self, copy: Copy) -> tuple[TrainingBatch, Arrival]:
        batch = next(self._batches)
        return batch, copy(batch)


class SideStream:
    """Copies batches to a GPU beside what it computes: from pinned memory, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def __call__(self, batch: TrainingBatch) -> Arrival:
        """Start to copy a batch; what it is copied from is free once this returns."""
        with torch.cuda.stream(self.stream):
            copied = pinned(batch).to(self.device, non_blocking=True)
            done = self.stream.record_event()

        def arrive() -> TrainingBatch:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(done)
            for tensor in tensors(copied):
                # Allocated for the side stream: without this the next copy could take memory that a step still reads.
                tensor.record_stream(current)
            return copied

        return arrive


def tensors(batch: Movable) -> Iterator[Tensor]:
    """Yield every tensor of a batch, nested ones included."""
    for field in dataclasses.fields(batch):  # type: ignore[arg-type]  # every subclass is a dataclass
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Movable):
            yield from tensors(value)


def pinned(batch: Moved) -> Moved:
    """Return a batch whose tensors on the CPU are in pinned memory."""
    moved: dict[str, Any] = {}
    for field in dataclasses.fields(batch):  # type: ignore[arg-type]  # every subclass is a dataclass
        value = getattr(batch, field.name)
        if isinstance(value, Movable):
            value = pinned(value)
        elif isinstance(value, Tensor) and value.device.type == "cpu":
            value = value.pin_memory()
        moved[field.name] = value
    return type(batch)(**moved)
