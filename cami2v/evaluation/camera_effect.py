"""What an evaluation says of the model's camera: a record among its results, a paragraph at the top of its report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cami2v.camera_control.liveness import CameraEffect, verdict

Record = Mapping[str, Any]


def measured(effect: CameraEffect, *, clip_id: str, shuffled_with: str | None) -> Record:
    """Record an effect; `shuffled_with` is the clip whose trajectory was the shuffled one, None for its own poses."""
    return {
        "alive": effect.alive,
        "changes": {name: change if math.isfinite(change) else None for name, change in effect.changes.items()},
        "precision": effect.precision,
        "clip_id": clip_id,
        "shuffled_with": shuffled_with,
    }


def not_measured(reason: str) -> Record:
    """Record why there is no effect to tell of."""
    return {"alive": None, "reason": reason}


def sentence(record: Record | None) -> str:
    """Return what was measured, in plain text."""
    if record is None:
        return "not measured, no checkpoint was evaluated"
    if record["alive"] is None:
        return f"not measured ({record['reason']})"
    changes = {name: math.nan if change is None else change for name, change in record["changes"].items()}
    effect = CameraEffect(changes=changes, precision=record["precision"])
    shuffled = record["shuffled_with"] or "its own poses in another order"
    return f"{verdict(effect)}: {effect.describe()}; clip {record['clip_id']}, shuffled: {shuffled}"


def paragraph(record: Record | None) -> str:
    """Return the Markdown line on the camera; impossible to overlook where it changes nothing."""
    if record is None or record["alive"] is not False:
        return f"**Camera effect:** {sentence(record)}."
    return (
        f"> **Camera effect: {sentence(record)}.**\n>\n> **Every number below is that of a model that ignores its "
        "trajectories.** Check that the camera weights were in the checkpoint (load report), that camera=... is the "
        "method they were trained with, and that they were trained."
    )
