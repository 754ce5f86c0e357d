"""Weights files of every kind met in the wild, opened without reading a tensor and read one tensor at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cami2v.checkpoints.safetensors_files import is_safetensors, read_safetensors_header
from cami2v.checkpoints.stored_tensor import StoredTensor
from cami2v.checkpoints.torch_files import LEGACY_START, ZIP_START, read_torch_file
from cami2v.file_hash import file_sha256

WRAPPERS = ("module", "state_dict")
"""Keys under which DeepSpeed and Lightning keep the weights, in any order and depth."""

_PREFIX = re.compile(r"(_forward_module\.|_orig_mod\.|module\.)+")
"""What Lightning's strategies, torch.compile and DDP put before every name."""

_MODEL_STATES = re.compile(r"mp_rank_(\d+)_model_states\.pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The tensors of one weights file by name. Opening reads names and shapes, `read` one tensor."""

    path: Path
    """The file that is read; inside a DeepSpeed folder, its model states."""
    layout: str
    """Format and wrappers, for reports."""
    tensors: dict[str, StoredTensor]
    others: dict[str, str] = field(default_factory=dict)
    """Entries among the weights that are no tensors: name to type."""
    metadata: dict[str, str] = field(default_factory=dict)

    def read(self, name: str) -> Tensor:
        """Read one tensor to the CPU, as it is stored."""
        return self.tensors[name].read()

    def sha256(self) -> str:
        """Hash the file."""
        return file_sha256(self.path)


def open_archive(path: Path) -> Archive:
    """Open a weights file or a DeepSpeed folder. Raises ValueError in one line for what is neither, or damaged."""
    file = _model_states(path) if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{path}: there is no such file; give a weights file or a DeepSpeed checkpoint folder")
    with file.open("rb") as opened:
        start = opened.read(64)
    if is_safetensors(start):
        tensors, metadata = read_safetensors_header(file)
        return Archive(path=file, layout="safetensors", tensors=_without_prefix(file, tensors), metadata=metadata)
    if start.startswith((ZIP_START, LEGACY_START)):
        layout = "torch zip" if start.startswith(ZIP_START) else "torch legacy"
        return _unwrapped(file, read_torch_file(file), layout)
    raise ValueError(
        f"{path}: {_what_it_is(start)}; expected a safetensors or torch.save file (.safetensors, .ckpt, .pt, .bin)"
    )


def _unwrapped(file: Path, held: Any, layout: str) -> Archive:
    """Take the weights out of their wrappers. Raises ValueError where there are none inside."""
    wrappers: list[str] = []
    while isinstance(held, dict) and (inner := next((k for k in WRAPPERS if isinstance(held.get(k), dict)), None)):
        wrappers.append(inner)
        held = held[inner]
    if not isinstance(held, dict):
        raise ValueError(f"{file}: holds a {type(held).__name__}, expected a dict of tensors")
    tensors = {str(name): value for name, value in held.items() if isinstance(value, StoredTensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(held)[:8]) or "none"
        raise ValueError(f"{file}: no tensors among its keys ({keys}); known wrappers are {', '.join(WRAPPERS)}")
    others = {str(k): type(v).__name__ for k, v in held.items() if not isinstance(v, StoredTensor)}
    layout = ", ".join([layout, *(f"[{wrapper}]" for wrapper in wrappers)])
    return Archive(path=file, layout=layout, tensors=_without_prefix(file, tensors), others=others)


def _without_prefix(file: Path, tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    stripped = {_PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name: t for name, t in tensors.items()}
    if len(stripped) < len(tensors):
        raise ValueError(f"{file}: holds the same weight with and without a prefix such as module. or _forward_module.")
    return stripped


def _model_states(folder: Path) -> Path:
    """Return the file of a DeepSpeed checkpoint folder that holds the whole model.

    Raises ValueError for a folder that is none, and for ZeRO-3 and model-parallel ones, whose weights lie in pieces.
    """
    tag = folder / "latest"
    places = [folder / tag.read_text().strip()] if tag.is_file() else [folder, folder / "checkpoint"]
    files = sorted(file for place in places if place.is_dir() for file in place.iterdir())
    if any(file.name.startswith("zero_pp_rank_") and file.name.endswith("_model_states.pt") for file in files):
        raise ValueError(
            f"{folder}: a ZeRO-3 checkpoint, whose weights lie in pieces; join them first: in that folder, "
            "`python zero_to_fp32.py . weights.pt` (a run of cami2v: `python -m tools.convert_checkpoint export`)"
        )
    states = [file for file in files if _MODEL_STATES.fullmatch(file.name)]
    if len(states) > 1:
        raise ValueError(
            f"{folder}: a model-parallel checkpoint in {len(states)} parts, join them with DeepSpeed first"
        )
    if not states:
        raise ValueError(
            f"{folder}: neither a run folder (config.yaml) nor a DeepSpeed checkpoint (mp_rank_00_model_states.pt); "
            "name the weights file itself"
        )
    return states[0]


def _what_it_is(start: bytes) -> str:
    if not start:
        return "the file is empty, fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "only a Git LFS pointer, fetch the file itself (git lfs pull)"
    if start.lstrip().startswith(b"<"):
        return "a web page, the download failed"
    return "not a weights file, or damaged at its start"
