"""Reading small npz files fast: a training sample has one, and numpy's reader takes longer than all else about it."""

from __future__ import annotations

import functools
import io
import struct
from typing import Any

import numpy as np

_FILE, _DIRECTORY = b"PK\x03\x04", b"PK\x01\x02"
_HEADER = struct.Struct("<4s5H3I2H")
_ZIP64 = struct.Struct("<HHQQ")
_STORED, _UNKNOWN_YET, _IN_ZIP64 = 0, 8, 0xFFFFFFFF
_NPY = b"\x93NUMPY\x01\x00"


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by name.

    Uncompressed ones are read directly, others through `numpy.load`, with its exceptions for damaged files.
    """
    arrays = _stored(data)
    if arrays is not None:
        return arrays
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _stored(data: bytes) -> dict[str, np.ndarray] | None:
    """Read an archive as `numpy.savez` writes it; None for any other."""
    arrays: dict[str, np.ndarray] = {}
    offset = 0
    while data[offset : offset + 4] == _FILE and len(data) >= offset + _HEADER.size:
        _, _, flags, method, _, _, _, _, size, name_bytes, extra_bytes = _HEADER.unpack_from(data, offset)
        name_at = offset + _HEADER.size
        start = name_at + name_bytes + extra_bytes
        if flags & _UNKNOWN_YET or method != _STORED or start > len(data):
            return None
        if size == _IN_ZIP64:
            if extra_bytes != _ZIP64.size:
                return None
            _, _, size, _ = _ZIP64.unpack_from(data, start - extra_bytes)
        array = _array(data, start, size)
        if array is None:
            return None
        name = data[name_at : name_at + name_bytes].decode("ascii", "replace")
        arrays[name.removesuffix(".npy")] = array
        offset = start + size
    return arrays if arrays and data[offset : offset + 4] == _DIRECTORY else None


def _array(data: bytes, start: int, size: int) -> np.ndarray | None:
    if data[start : start + len(_NPY)] != _NPY or start + size > len(data):
        return None
    body = start + len(_NPY) + 2 + int.from_bytes(data[start + len(_NPY) : start + len(_NPY) + 2], "little")
    layout = _layout(data[start + len(_NPY) : body])
    if layout is None:
        return None
    dtype, shape, count = layout
    if count * dtype.itemsize != start + size - body:
        return None
    # A copy: files start arrays anywhere, and readers may write into theirs.
    return np.frombuffer(data, dtype, count, body).reshape(shape).copy()


@functools.lru_cache(maxsize=4096)  # one per number of frames, mostly
def _layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int] | None:
    try:
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    except ValueError:
        return None
    if columns_first or dtype.hasobject:
        return None
    return dtype, shape, int(np.prod(shape, dtype=np.int64))
