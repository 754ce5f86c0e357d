"""Makes a `models` folder of our own: other names, sizes and settings than the published one, our outputs stored."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cami2v.camera_control.cami2v import CamI2VCondition
from cami2v.checkpoints.released_names import released_names, to_released_shape
from tests.tools.own_model_cases import CASES, GEOMETRIES, geometry_arrays
from tools.parity import encoders, end_to_end, network_masks, networks
from tools.parity.network_cases import ModelCase, checksum, find_model_cases
from tools.parity.runners import MODEL_RUNNERS, load_runner
from tools.parity.weights import PREFIXES, fill, published_weight

Row = tuple[str, list[int], str]
"""Name, shape and kind of one entry of a state dict."""


@dataclass
class Recording:
    """What one case's runner computed."""

    outputs: dict[str, Tensor] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, list[Row]] = field(default_factory=dict)
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def make_models_folder(folder: Path) -> Path:
    """Write all of `CASES` with what our code gives for them; return the folder."""
    folder.mkdir(parents=True)
    np.savez(folder / "geometries.npz", **geometry_arrays())
    index: dict[str, Any] = {"cases": {}, "geometries": GEOMETRIES}
    for name, entry in CASES.items():
        unknown = {"outputs": {}, "trainable": [], "loss": 1.0}
        index["cases"][name] = {**unknown, **entry, "case": name, "file": f"{name}.npz"}
    _write_index(folder, index)
    keys: dict[str, Any] = {}
    for case in find_model_cases(folder):
        recording = record(case)
        keys |= {f"{case.name}:{part}": rows for part, rows in recording.keys.items()}
        _store(folder, index["cases"][case.name], recording)
    with gzip.open(folder / "keys.json.gz", "wt") as file:
        json.dump(keys, file)
    _write_index(folder, index)
    return folder


def record(case: ModelCase) -> Recording:
    """Run a case's runner with all comparisons replaced by notes of our side."""
    recording = Recording()
    with pytest.MonkeyPatch.context() as patch:
        for module in (networks, encoders, end_to_end, network_masks):
            for name, replacement in _replacements(recording).items():
                if hasattr(module, name):
                    patch.setattr(module, name, replacement)
        load_runner(MODEL_RUNNERS[case.kind])(case)
    return recording


def _replacements(recording: Recording) -> dict[str, Callable[..., Any]]:
    def give_weights(checks: object, case: ModelCase, part: str, module: nn.Module) -> None:
        fill(part, module)
        ours, released = PREFIXES[part]
        values = {f"{ours}{name}": value.detach() for name, value in module.named_parameters()}
        names = released_names(values)
        rows = [
            (names[our].removeprefix(released), list(to_released_shape(our, value).shape), "param")
            for our, value in values.items()
        ]
        unused = last_text_block(rows)
        recording.keys[part] = rows + unused
        numbers = [*values.values(), *(published_weight(name, tuple(shape)) for name, shape, _ in unused)]
        recording.weights[part] = {
            "n_param_tensors": len(numbers),
            "n_params": sum(value.numel() for value in numbers),
            "sum": sum(value.double().sum().item() for value in numbers),
            "abs_sum": sum(value.double().abs().sum().item() for value in numbers),
        }

    def compare_output(checks: object, case: ModelCase, name: str, ours: Tensor, **tolerances: object) -> None:
        recording.outputs[name] = ours.detach().clone()

    def compare_tap(checks: object, case: ModelCase, name: str, ours: Tensor) -> None:
        recording.taps[name] = ours.detach().clone()

    def compare_stages(checks: object, case: ModelCase, stages: dict[str, Tensor]) -> str:
        recording.taps.update(stages)
        return ""

    def compare_masks(checks: object, case: ModelCase, control: object, condition: CamI2VCondition) -> None:
        recording.masks.update({str(8 * level): mask.dense() for level, mask in condition.masks.levels.items()})

    def compare(checks: object, key: str, ours: Tensor, *others: object, **settings: object) -> tuple[int, int]:
        recording.masks[key] = ours
        return 0, 0

    def compare_gradients(checks: object, case: ModelCase, gradients: dict[str, Tensor]) -> None:
        recording.extra["trainable"] = list(gradients)
        recording.extra["grads"] = {name: [g.norm().item(), g.sum().item()] for name, g in gradients.items()}

    def compare_loss(checks: object, case: ModelCase, loss: Tensor) -> None:
        recording.extra["loss"] = loss.item()

    return {
        "give_weights": give_weights,
        "compare_output": compare_output,
        "compare_tap": compare_tap,
        "compare_stages": compare_stages,
        "compare_masks": compare_masks,
        "stored_masks": lambda case, control, condition: condition.masks,
        "stored": lambda checks, case, key: torch.empty(0),
        "compare": compare,
        "compare_gradients": compare_gradients,
        "compare_loss": compare_loss,
    }


def last_text_block(rows: list[Row]) -> list[Row]:
    """List the parameters of the released text tower's last block, which no model of ours has."""
    text = {name: shape for name, shape, _ in rows if ".resblocks." in name and "visual" not in name}
    number = 1 + max((int(name.split(".resblocks.")[1].split(".")[0]) for name in text), default=0)
    first = {name: shape for name, shape in text.items() if ".resblocks.0." in name}
    return [(name.replace(".resblocks.0.", f".resblocks.{number}."), shape, "param") for name, shape in first.items()]


def _store(folder: Path, entry: dict[str, Any], recording: Recording) -> None:
    arrays: dict[str, Any] = {f"out__{name}": value.numpy() for name, value in recording.outputs.items()}
    arrays |= {f"mask__{key}": np.packbits(mask.numpy()) for key, mask in recording.masks.items()}
    np.savez(folder / entry["file"], **arrays)
    entry |= recording.extra
    entry["weights"] = recording.weights
    entry["outputs"] = {name: described(value) for name, value in recording.outputs.items()}
    entry["taps"] = {name: described(value) for name, value in recording.taps.items()}
    entry["masks"] = {
        key: {
            "shape": list(mask.shape),
            "true_count": int(mask.sum()),
            "empty_rows": int((~mask.any(dim=-1)).sum()),
            "sha256_packbits": hashlib.sha256(np.packbits(mask.numpy()).tobytes()).hexdigest(),
            "stored_in": [entry["file"], f"mask__{key}"],
        }
        for key, mask in recording.masks.items()
    }


def described(value: Tensor) -> dict[str, Any]:
    """Describe a tensor as the index does."""
    return {"shape": list(value.shape), "stored_dtype": "float32", "checksum": checksum(value).tolist()}


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    (folder / "index.json").write_text(json.dumps(index))
