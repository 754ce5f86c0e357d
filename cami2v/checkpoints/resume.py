"""Continue a run exactly: compare what a checkpoint says about itself with this run, then restore and verify."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from cami2v.checkpoints.load import read_weights
from cami2v.checkpoints.save import Provenance
from cami2v.training.engine import Engine
from cami2v.training.run_folder import FORMAT, RECORD, WEIGHTS
from cami2v.training.state import TrainState


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Read trainer.json. Raises ValueError where it is missing, damaged or of another format."""
    path = checkpoint / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); the checkpoint is damaged, use an older one") from error
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: has format {record.get('format')!r}, this version reads format {FORMAT}")
    return record


def check_resumable(record: dict[str, Any], checkpoint: Path, expected: dict[str, Any]) -> None:
    """Raise ValueError where exact continuation is impossible: another engine, world size, precision, seed or data.

    `expected` holds this run's values of engine, world_size, precision, seed, manifest_sha256.
    """
    found = record | record["provenance"]
    fixes = {
        "engine": "use engine={}",
        "world_size": "launch {} processes",
        "precision": "use engine.precision={}",
        "seed": "use seed={}",
        "manifest_sha256": "use the shard set with manifest {}",
    }
    for name, fix in fixes.items():
        if name in expected and found[name] != expected[name]:
            raise ValueError(
                f"resume: {checkpoint} was written with {name} {found[name]}, this run has {expected[name]}; "
                f"{fix.format(found[name])} to continue exactly, or start a new run with "
                f"init_from={checkpoint / WEIGHTS}"
            )


def load_checkpoint(checkpoint: Path, engine: Engine, provenance: Provenance) -> TrainState:
    """Restore an engine exactly as `save_checkpoint` left it (collective).

    The frozen weights must have been built already. Raises ValueError for another set of trainable weights or another
    frozen base, and where the restored weights are not those of the checkpoint.
    """
    record = read_record(checkpoint)
    saved = read_weights(checkpoint / WEIGHTS)
    _same_names(checkpoint, saved, engine.trainable)
    if record["provenance"]["base_fingerprint"] != provenance.base_fingerprint:
        raise ValueError(
            f"resume: the frozen weights of this run differ from those {checkpoint} was trained on; use the same "
            "backbone, encoders, seed and base (init_from)"
        )
    engine.load_state(checkpoint / "engine")
    # DeepSpeed and Accelerate skip what they do not find; only a comparison shows that everything arrived.
    wrong = [name for name, value in engine.trainable_weights().items() if not torch.equal(value, saved[name])]
    if wrong:
        raise ValueError(f"{checkpoint}: {len(wrong)} restored weights differ from {WEIGHTS} (first: {wrong[0]})")
    return TrainState(**record["state"])


def _same_names(checkpoint: Path, saved: Collection[str], expected: Collection[str]) -> None:
    missing, extra = sorted(set(expected) - set(saved)), sorted(set(saved) - set(expected))
    if missing or extra:
        raise ValueError(
            f"resume: {checkpoint} holds {len(saved)} trained weights, this run trains {len(expected)} "
            f"({len(missing)} not in the checkpoint{f', first {missing[0]}' if missing else ''}; {len(extra)} only "
            f"there{f', first {extra[0]}' if extra else ''}); use the same camera, backbone and trainer.trainable"
        )
