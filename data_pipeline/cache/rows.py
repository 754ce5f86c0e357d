"""Arrays of a cache: a row per frame or caption, each with a checksum, so that single rows can be read and trusted."""

from __future__ import annotations

import io
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Shaped, UInt64
from torch import Tensor

HEADER_BYTES = 128
"""Of every .npy member: numpy pads to it, with room to spare."""

Rows = Shaped[np.ndarray, "_rows ..."]


class NumberFormat(StrEnum):
    """How the numbers of a cache are stored."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    """As their bits, in uint16: numpy has no bfloat16."""

    @property
    def stored(self) -> np.dtype[np.generic]:
        """Return numpy's type of the stored numbers."""
        return np.dtype({"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}[self.value])

    @property
    def torch(self) -> torch.dtype:
        """Return torch's type of the numbers."""
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.value]

    def store(self, numbers: Tensor, what: str) -> Rows:
        """Return numbers as they are stored; raises ValueError where some are not finite or too large for it."""
        given = numbers.to("cpu", self.torch)
        if not given.isfinite().all():
            raise ValueError(
                f"{what}: holds values that are not finite as {self.value} (largest: "
                f"{float(numbers.abs().max()):.3g}); try encode.dtype=bf16 or fp32, or another encode.precision"
            )
        return (given.view(torch.int16).numpy().view(np.uint16)) if self is NumberFormat.BF16 else given.numpy()

    def tensor(self, rows: Rows) -> Tensor:
        """Return stored numbers as a tensor over the same memory."""
        if self is NumberFormat.BF16:
            return torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(rows)


def to_npy(rows: np.ndarray) -> bytes:
    """Return the .npy file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(rows))
    data = buffer.getvalue()
    assert len(data) == HEADER_BYTES + rows.nbytes, "numpy's header has grown"
    return data


def checksums(rows: Rows) -> UInt64[np.ndarray, " _rows"]:
    """Return the sum of each row's bytes, taken as 64-bit numbers, modulo 2**64.

    It tells a row apart from one with flipped bits, holes or foreign content, at the speed of memory: CRC-32 took
    longer than all other work on a training sample.
    """
    size = rows[:1].nbytes
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    if size % 8:
        flat = np.pad(flat, ((0, 0), (0, -size % 8)))
    return np.add.reduce(flat.view(np.uint64), axis=1)
