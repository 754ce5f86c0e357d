"""The fast npz reader: what numpy reads, for every kind of file numpy reads."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from data_pipeline.npz import _stored, read_npz

ARRAYS: dict[str, np.ndarray] = {
    "poses": np.arange(24, dtype=np.float64).reshape(2, 3, 4),
    "times": np.array([5, 6], dtype=np.int64),
    "scale": np.array(3, dtype=np.float32),
    "none": np.zeros((0, 4)),
}


def file_of(write: Callable[..., None], **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    write(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(("write", "fast"), [(np.savez, True), (np.savez_compressed, False)])
def test_it_equals_numpy(write: Callable[..., None], fast: bool) -> None:
    data = file_of(write, **ARRAYS)
    assert (_stored(data) is not None) == fast
    read = read_npz(data)
    assert list(read) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        assert read[name].dtype == expected.dtype
        np.testing.assert_array_equal(read[name], expected)
        assert read[name].flags.writeable


def test_columns_first_is_left_to_numpy() -> None:
    data = file_of(np.savez, turned=np.asfortranarray(ARRAYS["poses"][0]))
    assert _stored(data) is None
    np.testing.assert_array_equal(read_npz(data)["turned"], ARRAYS["poses"][0])


def test_no_pickles() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        read_npz(file_of(np.savez, thing=np.array([{}], dtype=object)))


def test_a_file_cut_off_is_left_to_numpy_which_says_so() -> None:
    data = file_of(np.savez, **ARRAYS)
    for length in range(data.index(b"PK\x01\x02")):
        assert _stored(data[:length]) is None
    with pytest.raises(zipfile.BadZipFile):
        read_npz(data[: len(data) // 2])
