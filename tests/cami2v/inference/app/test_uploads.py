"""Files that visitors hand in: what they hold counts, not what they are called."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cami2v.inference.app.settings import Limits
from cami2v.inference.app.uploads import handed_in, open_uploaded_path, read_depth_picture, read_picture

LIMITS = Limits(upload_megabytes=1, megapixels=0.1, long_side=100, frames=64, steps=50, results=12)
POSE = "0 0.5 0.8 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
ROW = "1 0.5 0.8 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 -0.5"


def encoded(kind: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_pictures_are_upright_small_and_bare(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where I live"
    turned = read_picture(written(tmp_path, "a.jpg", encoded("JPEG", exif=exif)), LIMITS)
    assert turned.size == (30, 40)
    assert not turned.getexif()
    wide = read_picture(written(tmp_path, "any.name", encoded("WEBP", (300, 150))), LIMITS)
    assert (wide.size, wide.mode) == ((100, 50), "RGB")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"\x7fELF" + bytes(100), "a.png: its content is an executable; give a PNG"),
        ("a.png", b"#!/bin/sh\nrm", "its content is a script"),
        ("a.png", b"<svg onload='x'/>", "its content is an SVG"),
        ("a.jpg", pickle.dumps([1]), "its content is a pickle"),
        ("a.jpg", encoded("GIF"), "its content is a GIF"),
        ("a.jpg", encoded("JPEG")[:200], "its content is no picture that can be read"),
        ("a.jpg", b"", "a.jpg: is empty"),
        ("a.png", encoded("PNG") + bytes(2**20), "a.png: 1 MB; at most 1 MB are taken"),
        ("a.png", encoded("PNG", (400, 400)), "400x400 pixels; at most 0.1 megapixels"),
        ("<img src=x>.png", b"x", "_img src_x_.png: its content"),
    ],
)
def test_what_is_no_picture_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_picture(written(tmp_path, name, content), LIMITS)


def test_only_files_in_the_folder_of_uploads_were_handed_in(tmp_path: Path) -> None:
    inside = tmp_path / "uploads" / "a.png"
    inside.parent.mkdir()
    inside.write_bytes(b"x")
    outside = written(tmp_path, "b.png", b"x")
    link = inside.with_name("link.png")
    link.symlink_to(outside)
    assert handed_in({"path": str(inside)}, inside.parent) == inside
    for wrong in (None, {}, {"path": 3}, {"path": "a\0"}, {"path": str(outside)}, {"path": str(link)}):
        with pytest.raises(ValueError, match="no file|was not handed in"):
            handed_in(wrong, inside.parent)
    with pytest.raises(ValueError, match="was not handed in"):
        handed_in({"path": f"{inside.parent}/../b.png"}, inside.parent)


def test_depth_maps_are_pictures_of_16_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 1500, np.uint16)).save(tmp_path / "depth.png")
    assert np.array_equal(read_depth_picture(tmp_path / "depth.png", LIMITS), np.full((3, 4), 1.5, np.float32))
    np.save(tmp_path / "depth.npy", np.ones((3, 4)))
    for path in (written(tmp_path, "rgb.png", encoded("PNG")), tmp_path / "depth.npy"):
        with pytest.raises(ValueError, match="a depth map is a 16-bit PNG"):
            read_depth_picture(path, LIMITS)


def test_camera_paths_come_as_files_of_any_format(tmp_path: Path) -> None:
    text = written(tmp_path, "walk.txt", f"https://example.org\n{POSE}\n{ROW}\n".encode())
    chosen = open_uploaded_path([text], tmp_path / "1", LIMITS)
    ahead = chosen.sample(3, default_frames=3).camera_to_world()[:, 2, 3]
    assert ahead.tolist() == pytest.approx([0, 0.25, 0.5])
    described = written(tmp_path, "spin.yaml", b"mix: [zoom_in, {preset: look_left, extent: 0.1}]")
    assert open_uploaded_path([described], tmp_path / "2", LIMITS).path.frames is None
    colmap = {
        "cameras.txt": b"1 PINHOLE 64 48 40 40 32 24\n",
        "images.txt": b"1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 0 0 -1 1 b.png\n\n",
    }
    model = [written(tmp_path, name, content) for name, content in colmap.items()]
    chosen = open_uploaded_path(model, tmp_path / "3", LIMITS)
    assert chosen.path.frames == 2
    tum = [
        written(tmp_path, "a.tum", b"0 0 0 0 0 0 0 1\n1 0 0 1 0 0 0 1\n"),
        written(tmp_path, "intrinsics.txt", b"0.5 0.8 0.5 0.5\n"),
    ]
    assert open_uploaded_path(tum[:1], tmp_path / "4", LIMITS).path.frames == 2


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        (["a.txt"], pickle.dumps([1], protocol=4), "a.txt: its content is a pickle, which can run programs"),
        (["a.pth"], b"x", r"ends in .pth; a camera path ends in .txt, .json"),
        (["a.txt"], b"PK\x03\x04data", "an archive"),
        (["a.json"], b"[" * 100_000, "a.json"),
        (["a.yaml"], b"file: /etc/passwd", "must not; inline it"),
        (["a.json"], json.dumps({"mix": ["/etc/passwd"]}).encode(), "'/etc/passwd' is unknown"),
        (["a.yaml"], b"- 1", "no description of a camera path"),
        (["a.txt"], b"hello", "a.txt"),
        (["a.txt", "b.txt"], b"hello", "2 files: one camera path, a COLMAP model"),
    ],
)
def test_what_is_no_path_is_refused_and_no_folder_is_told(
    names: list[str], content: bytes, message: str, tmp_path: Path
) -> None:
    paths = [written(tmp_path, name, content) for name in names]
    with pytest.raises(ValueError, match=message) as error:
        open_uploaded_path(paths, tmp_path / "new", LIMITS)
    assert str(tmp_path) not in str(error.value)
    assert "\n" not in str(error.value)
