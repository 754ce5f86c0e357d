"""The safetensors format (8 bytes of length, a JSON header, numbers): reading the header, writing as a stream."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cami2v.checkpoints.stored_tensor import StoredTensor, contiguous_stride

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32,
    "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def is_safetensors(start: bytes) -> bool:
    """Tell from a file's first nine bytes."""
    return len(start) >= 9 and start[8:9] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] <= LONGEST_HEADER


def read_safetensors_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return a file's tensors and its metadata. Raises ValueError in one line for a damaged file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = file.read(length)
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        tensors = {name: _stored(path, entry, 8 + length, size) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = " ".join(str(error).split())
        raise ValueError(
            f"{path}: not a readable safetensors file ({what}); it is damaged or cut off, fetch it again"
        ) from (error)
    return tensors, metadata


def _stored(path: Path, entry: dict, start: int, size: int) -> StoredTensor:
    dtype, shape = DTYPES[entry["dtype"]], tuple(int(length) for length in entry["shape"])
    first, last = entry["data_offsets"]
    if last - first != math.prod(shape) * dtype.itemsize or first < 0 or start + last > size:
        raise ValueError("its tensors are not all there")
    return StoredTensor(file=path, offset=start + first, dtype=dtype, shape=shape, stride=contiguous_stride(shape))


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a file holding one tensor at a time; `read` is asked for each. The file appears complete or not at all.

    Raises ValueError for a dtype the format does not have.
    """
    for name, (dtype, _) in tensors.items():
        if dtype not in _NAMES:
            raise ValueError(f"{name}: dtype {dtype} does not exist in safetensors; write a .pt file")
    # Widest numbers first, so that all lie at multiples of their size.
    order = sorted(tensors, key=lambda name: -tensors[name][0].itemsize)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in order:
        dtype, shape = tensors[name]
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                file.write(raw_bytes(read(name), *tensors[name], name))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def raw_bytes(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], name: str) -> memoryview:
    """Return a tensor's bits; it must be what was announced."""
    got = (tensor.dtype, tuple(tensor.shape))
    assert got == (dtype, shape), f"{name}: {got}"
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
