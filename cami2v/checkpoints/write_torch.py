"""Write a torch.save file as a stream: one tensor in memory at a time, which torch.save itself does not offer."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cami2v.checkpoints.safetensors_files import raw_bytes
from cami2v.checkpoints.stored_tensor import contiguous_stride
from cami2v.checkpoints.torch_files import STORAGES

_STORAGE_NAMES = {dtype: name for name, dtype in STORAGES.items() if name != "UntypedStorage"}
ROOT = "archive"


class _Reference:
    """Pickles as a tensor whose numbers lie in the storage `key`."""

    def __init__(self, key: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.key, self.dtype, self.shape = key, dtype, shape

    def __reduce__(self) -> tuple[Any, ...]:
        stride = contiguous_stride(self.shape)
        return torch._utils._rebuild_tensor_v2, (_Numbers(self), 0, self.shape, stride, False, {})


class _Numbers:
    """Stands for a storage; pickled by the name under which the file holds it."""

    def __init__(self, tensor: _Reference) -> None:
        count = 1
        for length in tensor.shape:
            count *= length
        kind = getattr(torch, _STORAGE_NAMES[tensor.dtype])
        self.identity = ("storage", kind, tensor.key, "cpu", count)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> Any:
        """Write storages by reference."""
        return value.identity if isinstance(value, _Numbers) else None


def write_torch(
    path: Path,
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    read: Callable[[str], Tensor],
    wrapper: str | None,
) -> None:
    """Write a zip file as torch.save does, with the tensors under the key `wrapper`, or flat.

    `read` is asked for one tensor after the other. The file appears complete or not at all. Raises ValueError for a
    dtype without a storage class of its own.
    """
    for name, (dtype, _) in tensors.items():
        if dtype not in _STORAGE_NAMES:
            raise ValueError(f"{name}: dtype {dtype} cannot be written to a torch file; write a .safetensors file")
    held: dict[str, Any] = {
        name: _Reference(str(number), dtype, shape) for number, (name, (dtype, shape)) in enumerate(tensors.items())
    }
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=2).dump({wrapper: held} if wrapper else held)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(f"{ROOT}/data.pkl", pickled.getvalue())
            archive.writestr(f"{ROOT}/byteorder", b"little")
            for number, name in enumerate(tensors):
                with archive.open(f"{ROOT}/data/{number}", "w", force_zip64=True) as entry:
                    entry.write(raw_bytes(read(name), *tensors[name], name))
            archive.writestr(f"{ROOT}/version", b"3\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
