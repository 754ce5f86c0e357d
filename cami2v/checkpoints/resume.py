"""Continue a run: compare what a checkpoint says about itself with this run, then restore and verify.

Checkpoints do not depend on how a run was spread over processes. On as many processes under the same engine and
precision a run continues bit for bit; on others with the same samples, optimizer state and average, and the rounding of
the new engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from cami2v.checkpoints.integrity import read_record
from cami2v.checkpoints.load import read_weights, weight_names
from cami2v.checkpoints.save import Provenance
from cami2v.training.ema import WeightAverage
from cami2v.training.engine import Engine
from cami2v.training.loss_scale import restore_loss_scale
from cami2v.training.random_states import restore_random_states
from cami2v.training.run_folder import AVERAGE, OPTIMIZER, RANDOM_STATES, WEIGHTS
from cami2v.training.state import TrainState
from cami2v.training.trained_state import MOMENTS, Part

logger = logging.getLogger(__name__)


def check_resumable(record: dict[str, Any], checkpoint: Path, expected: dict[str, Any]) -> None:
    """Raise ValueError where this run is another one: another seed, other data or another global batch.

    `expected` holds this run's values of seed, manifest_sha256, global_batch_size.
    """
    fixes = {
        "seed": "use seed={}",
        "manifest_sha256": "use the shard set with manifest {}",
        "global_batch_size": "use trainer.global_batch_size={} (micro batch and processes may change)",
    }
    for name, fix in fixes.items():
        found = record["provenance"][name]
        if name in expected and found != expected[name]:
            raise ValueError(
                f"resume: {checkpoint} was written with {name} {found}, this run has {expected[name]}; "
                f"{fix.format(found)} to continue, or start a new run with init_from={checkpoint / WEIGHTS}"
            )


def load_checkpoint(
    checkpoint: Path, engine: Engine, provenance: Provenance, average: WeightAverage | None = None
) -> TrainState:
    """Restore an engine and the average of its weights from what `gather_content` found (collective).

    The frozen weights must have been built already, and the files checked. Raises ValueError for another set of
    trainable weights or another frozen base, and where what was restored is not what the checkpoint holds.
    """
    record = read_record(checkpoint)
    _check_names(checkpoint, weight_names(checkpoint / WEIGHTS), engine.trainable)
    if record["provenance"]["base_fingerprint"] != provenance.base_fingerprint:
        raise ValueError(
            f"resume: the frozen weights of this run differ from those {checkpoint} was trained on; use the same "
            "backbone, encoders, seed and base (init_from)"
        )
    state = engine.trained_state
    with safe_open(str(checkpoint / WEIGHTS), framework="pt") as file:
        _check_shapes(checkpoint, engine, lambda name: tuple(file.get_slice(name).get_shape()))
        for name in engine.trainable:
            state.write(Part.WEIGHT, name, file.get_tensor(name).to(engine.device))
    with safe_open(str(checkpoint / OPTIMIZER), framework="pt") as file:
        for part in MOMENTS:
            for name in engine.trainable:
                state.write(part, name, file.get_tensor(f"{part.value}/{name}").to(engine.device))
        state.set_steps({name: int(file.get_tensor(f"step/{name}")) for name in engine.trainable})
    state.follow()
    _load_average(checkpoint, engine, average)
    restore_loss_scale(engine.loss_scaler, record["loss_scale"])
    if record["world_size"] == engine.world_size:
        # With another number of processes there is no such thing: whatever training draws comes from its samples.
        _restore_randomness(checkpoint, engine.rank)
    _verify(checkpoint, engine, average)
    return TrainState(**record["state"])


def _load_average(checkpoint: Path, engine: Engine, average: WeightAverage | None) -> None:
    if average is None:
        return
    if not (checkpoint / AVERAGE).is_file():
        average.restart()
        logger.warning("%s holds no average: it starts from the weights of this step", checkpoint)
        return
    with safe_open(str(checkpoint / AVERAGE), framework="pt") as file:
        average.load(lambda name: file.get_tensor(name).to(engine.device))


def _restore_randomness(checkpoint: Path, rank: int) -> None:
    own = f"{rank}/"
    states = read_weights(checkpoint / RANDOM_STATES)
    restore_random_states({name.removeprefix(own): value for name, value in states.items() if name.startswith(own)})


def _verify(checkpoint: Path, engine: Engine, average: WeightAverage | None) -> None:
    """Gather everything again and compare: neither DeepSpeed nor a copy into a view says so where nothing arrived."""
    state = engine.trained_state
    _compare(checkpoint / WEIGHTS, engine, "", state.read(Part.WEIGHT))
    for part in MOMENTS:
        _compare(checkpoint / OPTIMIZER, engine, f"{part.value}/", state.read(part))
    if average is not None and (checkpoint / AVERAGE).is_file():
        _compare(checkpoint / AVERAGE, engine, "", average.read())


def _compare(path: Path, engine: Engine, prefix: str, found: Iterable[tuple[str, Tensor]]) -> None:
    wrong = []
    with safe_open(str(path), framework="pt") as file:
        for name, value in found:
            # Gathering needs every process, comparing only one.
            if engine.is_main and not torch.equal(value.cpu(), file.get_tensor(f"{prefix}{name}")):
                wrong.append(f"{prefix}{name}")
    if wrong:
        raise ValueError(f"{path}: {len(wrong)} restored tensors differ from the file (first: {wrong[0]})")


def _check_names(checkpoint: Path, saved: Collection[str], expected: Collection[str]) -> None:
    missing, extra = sorted(set(expected) - set(saved)), sorted(set(saved) - set(expected))
    if missing or extra:
        raise ValueError(
            f"resume: {checkpoint} holds {len(saved)} trained weights, this run trains {len(expected)} "
            f"({len(missing)} not in the checkpoint{f', first {missing[0]}' if missing else ''}; {len(extra)} only "
            f"there{f', first {extra[0]}' if extra else ''}); use the same camera, backbone and trainer.trainable"
        )


def _check_shapes(checkpoint: Path, engine: Engine, saved: Callable[[str], tuple[int, ...]]) -> None:
    for name, shape in engine.trained_state.shapes.items():
        if saved(name) != tuple(shape):
            raise ValueError(
                f"resume: {checkpoint}: {name} has shape {saved(name)}, this run's has {tuple(shape)}; use the same "
                "camera and backbone"
            )
