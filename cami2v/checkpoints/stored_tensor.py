"""One tensor inside a weights file: where its numbers lie, and how to read them and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Place, type and layout of a tensor in a file."""

    file: Path
    offset: int
    """Byte of the first element."""
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """In elements, as torch counts."""

    @property
    def bytes_spanned(self) -> int:
        """Bytes from the first element to the end of the last; gaps of a strided view included."""
        return span(self.shape, self.stride) * self.dtype.itemsize

    def read(self) -> Tensor:
        """Read the tensor, contiguous. Raises ValueError where the file has become shorter."""
        # Plain reads: pages of a memory map would count as this process's memory until it is closed.
        buffer = torch.empty(self.bytes_spanned, dtype=torch.uint8)
        view, done = buffer.numpy().data, 0
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.offset)
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise ValueError(f"{self.file}: ended while being read; the file changed, fetch or copy it again")
                done += count
        return buffer.view(self.dtype).as_strided(self.shape, self.stride).contiguous()


def span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Return how many elements lie between the first and the last of a strided view, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the stride of a contiguous tensor."""
    stride, step = [], 1
    for length in reversed(shape):
        stride.append(step)
        step *= max(length, 1)
    return tuple(reversed(stride))
