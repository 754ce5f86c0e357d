"""Let the process that failed first speak first: the others only lost contact with it."""

from __future__ import annotations

import time

import torch

from cami2v.training import environment

_SECONDS = 45.0
"""Longer than launchers take to end the others: ours and torchrun 30 s, srun --kill-on-bad-exit less."""


def wait_for_first_failure(error: BaseException) -> str | None:
    """Return one line, after a while, for an error that another process's end caused; None, at once, for others.

    The process at fault speaks first, and whatever started the processes ends this one meanwhile: nothing buries its
    traceback.
    """
    text = str(error)
    if not (isinstance(error, torch.distributed.DistError) or "/gloo/" in text):
        return None
    time.sleep(_SECONDS)
    rank = environment.rank()
    return f"process {rank} lost another one, whose own error comes first in the log ({text.partition('. ')[0]})"
