"""Write checkpoints: complete or absent, whatever kills the run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from cami2v.training.engine import Engine
from cami2v.training.run_folder import FORMAT, RECORD, WEIGHTS, RunFolder
from cami2v.training.state import TrainState


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a run's numbers come from; stored with its weights."""

    config_sha256: str
    manifest_sha256: str
    scale_policy: str
    git_revision: str
    base_fingerprint: str
    """`fingerprint` of everything that is not trained."""
    seed: int
    global_batch_size: int
    micro_batch_size: int


def save_checkpoint(
    run: RunFolder, engine: Engine, state: TrainState, provenance: Provenance, *, keep_last: int
) -> Path:
    """Write the checkpoint of `state.step`, make it the latest and delete old ones (collective).

    Everything is written under another name first; one rename makes it a checkpoint. A run killed at any instant keeps
    the previous one.
    """
    target = run.checkpoint(state.step)
    partial = run.checkpoints / f".saving-{target.name}"
    if engine.is_main:
        run.clean()
        (partial / "engine").mkdir(parents=True)
    engine.barrier()
    engine.save_state(partial / "engine")
    weights = engine.trainable_weights()
    if engine.is_main:
        save_weights(partial / WEIGHTS, weights, state.step, provenance)
        record = checkpoint_record(engine, state, provenance)
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    engine.barrier()
    if engine.is_main:
        if target.exists():
            # Left by a run that was killed before `latest` named it: same step, same bits.
            replaced = target.with_name(f".replaced-{target.name}")
            os.replace(target, replaced)
            shutil.rmtree(replaced)
        os.replace(partial, target)
        run.set_latest(target)
        run.prune(keep_last)
    engine.barrier()
    return target


def save_weights(path: Path, weights: dict[str, Tensor], step: int, provenance: Provenance) -> None:
    """Write trained weights under our parameter names, with what is needed to use them again."""
    metadata = {"format": f"cami2v-{FORMAT}", "step": str(step)}
    metadata |= {name: str(value) for name, value in dataclasses.asdict(provenance).items()}
    save_file(weights, str(path), metadata=metadata)


def checkpoint_record(engine: Engine, state: TrainState, provenance: Provenance) -> dict[str, Any]:
    """Return the content of trainer.json."""
    return {
        "format": FORMAT,
        "state": dataclasses.asdict(state),
        "engine": engine.settings.kind.value,
        "precision": engine.settings.precision.value,
        "world_size": engine.world_size,
        "trainable": sorted(engine.trainable),
        "provenance": dataclasses.asdict(provenance),
        "versions": {package: _version(package) for package in ("cami2v", "torch", "accelerate", "deepspeed")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
