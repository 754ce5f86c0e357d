"""Names, shapes and places of the tensors in a torch.save file, zip or legacy, without running what it says.

A pickle is a program that calls whatever it names. Here every name becomes an inert record and nothing is imported, not
even torch's own functions, which `weights_only` does call. Foreign classes in a Lightning file thus do no harm and hide
no tensor; `weights_only` would refuse many such files, and read legacy ones whole.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cami2v.checkpoints.stored_tensor import StoredTensor, span

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
"""The pickled magic number of torch's first format."""

STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip

_UNREADABLE = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, OSError, ValueError, KeyError, IndexError,
    AttributeError, TypeError, OverflowError, MemoryError, RecursionError, NotImplementedError,
)  # fmt: skip
"""What damaged or hostile bytes can make the readers raise."""


class Storage:
    """A block of numbers that tensors are views of."""

    __slots__ = ("dtype", "key", "start")

    def __init__(self, key: str, dtype: torch.dtype, start: int) -> None:
        self.key = key
        self.dtype = dtype
        self.start = start
        """First element, where the storage itself is a view of a larger one (files of 2017)."""


class View:
    """A pickled tensor."""

    __slots__ = ("dtype", "offset", "shape", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, dtype: Any) -> None:
        self.storage, self.offset, self.shape, self.stride, self.dtype = storage, offset, shape, stride, dtype

    def locate(self, file: Path, places: dict[str, tuple[int, int]]) -> StoredTensor:
        """Find the numbers in the file. Raises ValueError where the view leaves its storage."""
        if not isinstance(self.storage, Storage) or not isinstance(self.dtype, torch.dtype):
            raise ValueError("a tensor without a storage")
        start, size = places[self.storage.key]
        shape, stride = tuple(self.shape), tuple(self.stride)
        numbers = (self.offset, self.storage.start, *shape, *stride)
        if len(shape) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a tensor with an impossible shape")
        # A v3 tensor counts in its own elements over an untyped storage.
        first = (self.offset + self.storage.start) * self.dtype.itemsize
        if first + span(shape, stride) * self.dtype.itemsize > size:
            raise ValueError("a tensor that is larger than its storage")
        return StoredTensor(file=file, offset=start + first, dtype=self.dtype, shape=shape, stride=stride)


class Inert(dict):
    """Stands for an object of any foreign class: takes whatever a pickle does to it, and does nothing."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Forget an object's state."""

    def append(self, item: object) -> None:
        """Forget an item."""

    extend = add = append

    __hash__ = object.__hash__  # type: ignore[assignment]  # enum members are keys in Lightning's files
    __eq__ = object.__eq__


class NamesOnly(pickle.Unpickler):
    """Unpickle to dicts, lists, numbers, strings, `View`s and `Inert`s; no global is ever looked up."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self._known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_v3,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter,
        }
        # Of this file's own: what one file's pickle does to its class ends with that file.
        self._inert: type = type("Inert", (Inert,), {})
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the inert counterpart of a name."""
        if module in ("torch", "torch.cuda", "torch.storage"):
            if name in STORAGES:
                return STORAGES[name]
            dtype = getattr(torch, name, None)
            if isinstance(dtype, torch.dtype):
                return dtype
        return self._known.get((module, name), self._inert)

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a pickled tensor refers to."""
        kind, dtype, key, _, _, *view = pid
        if kind not in ("storage", b"storage") or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("a reference to something that is no storage")
        start = view[0][1] if view and view[0] is not None else 0
        storage = Storage(str(key), dtype, start)
        self.storages.setdefault(storage.key, storage)
        return storage

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> View:
        return View(storage, offset, shape, stride, getattr(storage, "dtype", None))

    def _tensor_v3(
        self, storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
    ) -> View:
        return View(storage, offset, shape, stride, dtype)

    def _parameter(self, data: Any, *rest: Any) -> Any:
        return data


def read_torch_file(path: Path) -> Any:
    """Return what a torch.save file holds, with a StoredTensor for every tensor.

    Raises ValueError in one line for a file that is damaged or no such file.
    """
    with path.open("rb") as file:
        start = file.read(len(LEGACY_START))
        file.seek(0)
        read = _read_zip if start.startswith(ZIP_START) else _read_legacy
        try:
            held, places = read(file)
            return _located(held, lambda view: view.locate(path, places))
        except _UNREADABLE as error:
            what = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{path}: not a readable torch file ({what}); it is damaged or cut off, fetch it again"
            ) from (error)


def _read_zip(file: io.BufferedIOBase) -> tuple[Any, dict[str, tuple[int, int]]]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        found = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError("a zip file without data.pkl")
        root = found[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("written on a big-endian machine; save it again on a little-endian one")
        unpickler = NamesOnly(io.BytesIO(archive.read(found[0])))
        held = unpickler.load()
    places = {}
    for key in unpickler.storages:
        entry = entries[f"{root}data/{key}"]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its tensors are compressed")
        places[key] = (_data_start(file, entry.header_offset), entry.file_size)
    return held, places


def _data_start(file: io.BufferedIOBase, header: int) -> int:
    """Skip the local header of a zip entry, whose padding its directory does not know."""
    file.seek(header)
    fields = file.read(30)
    if not fields.startswith(ZIP_START):
        raise ValueError("its directory points nowhere")
    name_length, extra_length = struct.unpack_from("<HH", fields, 26)
    return int(header + 30 + name_length + extra_length)


def _read_legacy(file: io.BufferedIOBase) -> tuple[Any, dict[str, tuple[int, int]]]:
    NamesOnly(file).load()
    NamesOnly(file).load()
    system = NamesOnly(file).load()
    if not system["little_endian"]:
        raise ValueError("written on a big-endian machine; save it again on a little-endian one")
    unpickler = NamesOnly(file)
    held = unpickler.load()
    position_of_sizes = NamesOnly(file).load()
    position = file.tell()
    end = file.seek(0, io.SEEK_END)
    places = {}
    for key in position_of_sizes:
        file.seek(position)
        (count,) = struct.unpack("<q", file.read(8))
        size = count * unpickler.storages[str(key)].dtype.itemsize
        if size < 0 or position + 8 + size > end:
            raise ValueError("its tensors are not all there")
        places[str(key)] = (position + 8, size)
        position += 8 + size
    return held, places


def _located(held: Any, locate: Callable[[View], StoredTensor]) -> Any:
    """Replace the views in a tree of dicts; what else lies in there is left as it is."""
    if isinstance(held, View):
        return locate(held)
    if isinstance(held, dict):
        return {key: _located(value, locate) for key, value in held.items()}
    return held
