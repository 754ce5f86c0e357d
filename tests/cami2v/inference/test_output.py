"""Videos as files, the text they carry, and grids of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cami2v.inference.grid import labelled_grid
from cami2v.inference.output import OutputFormat, read_text, write_output
from cami2v.inference.record import Record, frames_sha256
from cami2v.video import read_frames

TEXT = '{"cami2v": "' + "ü" * 3000 + '"}'


def moving_square(frames: int = 3, size: int = 32) -> np.ndarray:
    video = np.zeros((frames, size, size, 3), np.uint8)
    for number in range(frames):
        video[number, 8:16, 4 * number : 4 * number + 8] = (250, 120, 20)
    return video


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp", "frames"])
def test_every_format_carries_its_text(kind: OutputFormat, tmp_path: Path) -> None:
    video = moving_square()
    path = write_output(tmp_path / "room.v2", video, kind, frames_per_second=8.0, crf=10, text=TEXT)
    assert path.name == ("room.v2" if kind == "frames" else f"room.v2.{kind}")
    assert read_text(path) == TEXT
    if kind == "mp4":
        assert np.abs(read_frames(path).astype(int) - video).mean() < 8
    elif kind == "frames":
        assert [np.array_equal(np.asarray(Image.open(path / f"{n:04d}.png")), video[n]) for n in range(3)] == [True] * 3
        write_output(tmp_path / "room.v2", video[:2], kind, frames_per_second=8.0, crf=10, text=TEXT)
        assert len(list(path.iterdir())) == 2
    else:
        with Image.open(path) as image:
            assert getattr(image, "n_frames", 1) == 3


def test_what_carries_no_record_says_so(tmp_path: Path) -> None:
    path = write_output(tmp_path / "other", moving_square(), "mp4", frames_per_second=8.0, crf=20, text="a holiday")
    with pytest.raises(ValueError, match=r"other.mp4: carries no record of how it was made"):
        Record.from_json(read_text(path), path)
    with pytest.raises(ValueError, match=r"nowhere.mp4: no such video"):
        read_text(tmp_path / "nowhere.mp4")


def test_a_grid_holds_every_video_at_its_place() -> None:
    small, other = np.full((2, 64, 64, 3), (10, 60, 90), np.uint8), np.full((3, 32, 96, 3), (200, 20, 90), np.uint8)
    grid = labelled_grid({("cami2v seed 0", "pan_left"): small, ("none", "orbit"): other}, ["cami2v seed 0", "none"],
                         ["pan_left", "orbit"])  # fmt: skip
    assert grid.shape[0] == 3
    assert grid.shape[1] % 2 == grid.shape[2] % 2 == 0
    dark, bright = (grid == (10, 60, 90)).all(axis=3), (grid == (200, 20, 90)).all(axis=3)
    assert dark[2].sum() == bright[0].sum() == 192 * 192
    rows, columns = (np.flatnonzero(bright[0].any(axis=1 - axis)) for axis in (0, 1))
    assert rows.min() > np.flatnonzero(dark[0].any(axis=1)).max()
    assert columns.min() > np.flatnonzero(dark[0].any(axis=0)).max()
    # Labels above and to the left, and nothing where there is no video.
    assert (grid[0, : np.flatnonzero(dark[0].any(axis=1)).min()] < 128).any()
    assert (grid[0, rows][:, : columns.min() - 8] == 255).mean() > 0.9


def test_frames_are_told_apart_by_size_and_content() -> None:
    video = moving_square()
    assert frames_sha256(video) == frames_sha256(video.copy())
    assert frames_sha256(video) != frames_sha256(video[::-1])
    assert frames_sha256(video) != frames_sha256(video.reshape(3, 64, 16, 3))
