"""Read object arrays of .npz files without running pickled code: numpy arrays, numbers, text, lists and dicts only."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

_ALLOWED = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain value")
        return super().find_class(module, name)


def read_object_array(path: Path, name: str) -> list[Any]:
    """Return the elements of an object array of an .npz file.

    Raises ValueError for a file that is no .npz, lacks the array or holds anything but plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            file = io.BytesIO(archive.read(f"{name}.npy"))
        if np.lib.format.read_magic(file) == (1, 0):
            _, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            _, _, dtype = np.lib.format.read_array_header_2_0(file)
        if not dtype.hasobject:
            raise ValueError(f"its array {name} has type {dtype}, expected objects")
        return np.ravel(_PlainUnpickler(file).load()).tolist()
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a list of plain records ({error})") from error
