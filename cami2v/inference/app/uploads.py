"""Files that visitors hand in: judged by their content, whatever they are called."""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cami2v.geometry.pose_files.formats import format_of
from cami2v.inference.app.settings import Limits
from cami2v.trajectories.choose import ChosenPath, open_path
from cami2v.trajectories.specification import SUFFIXES, read_specification

PICTURES = ("PNG", "JPEG", "WEBP")
PATHS = (".txt", ".json", ".tum", ".yaml", ".yml")
COLMAP = tuple(f"{name}.{kind}" for name in ("cameras", "images", "points3D") for kind in ("txt", "bin"))
"""Files of a COLMAP model, handed in together."""
BESIDE = "intrinsics.txt"
"""What belongs to a TUM file."""

FOREIGN = {
    b"\x7fELF": "an executable",
    b"MZ": "an executable",
    b"\xca\xfe\xba\xbe": "an executable",
    b"#!": "a script",
    b"PK\x03\x04": "an archive (PyTorch's .pth files are such)",
    b"\x1f\x8b": "an archive",
    b"\x80\x02": "a pickle, which can run programs when it is read",
    b"\x80\x03": "a pickle, which can run programs when it is read",
    b"\x80\x04": "a pickle, which can run programs when it is read",
    b"\x80\x05": "a pickle, which can run programs when it is read",
    b"<svg": "an SVG",
    b"<?xml": "XML",
    b"GIF8": "a GIF",
    b"%PDF": "a PDF",
}
"""First bytes of what people take for something else."""


def handed_in(file: Any, folder: Path) -> Path:
    """Return where an upload lies, by what the browser says. Raises ValueError for what is in another folder."""
    name = file.get("path") if isinstance(file, dict) else None
    if not isinstance(name, str) or "\0" in name:
        raise ValueError("no file")
    path = Path(name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"{shown_name(path)}: was not handed in")
    return path


def read_picture(path: Path, limits: Limits) -> Image.Image:
    """Read an uploaded picture as RGB, upright, at most `limits.long_side` long, without its metadata.

    Raises ValueError in one line for anything but a PNG, JPEG or WebP file within the limits.
    """
    name = shown_name(path)
    _check_size(path, name, limits)
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is a warning first; ours is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=PICTURES) as opened:
                width, height = opened.size
                if width * height > limits.megapixels * 1e6:
                    raise ValueError(
                        f"{name}: {width}x{height} pixels; at most {limits.megapixels:g} megapixels are taken"
                    )
                picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        found = foreign(path)
        what = f"its content is {found}" if found else "its content is no picture that can be read"
        raise ValueError(f"{name}: {what}; give a PNG, JPEG or WebP picture") from error
    picture.thumbnail((limits.long_side, limits.long_side), Image.Resampling.LANCZOS)
    # Of its pixels alone: cameras write down where and when.
    return Image.fromarray(np.asarray(picture))


def read_depth_picture(path: Path, limits: Limits) -> np.ndarray:
    """Read an uploaded 16-bit PNG in thousandths of a scene unit; 0 where the depth is unknown.

    Raises ValueError for anything else: arrays of NumPy are refused, they may hold pickles.
    """
    name = shown_name(path)
    _check_size(path, name, limits)
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            if opened.width * opened.height > limits.megapixels * 1e6:
                raise ValueError(f"{name}: more than {limits.megapixels:g} megapixels")
            if not opened.mode.startswith("I"):
                raise ValueError(f"{name}: {opened.mode} pixels; a depth map is a 16-bit PNG in thousandths of a unit")
            step = math.ceil(max(opened.size) / limits.long_side)
            # Every so many pixels: depths must not be mixed across edges.
            return np.asarray(opened, dtype=np.float32)[::step, ::step] / 1000
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"{name}: no PNG; a depth map is a 16-bit PNG in thousandths of a unit") from error


def open_uploaded_path(paths: Sequence[Path], folder: Path, limits: Limits) -> ChosenPath:
    """Open an uploaded path: a file of any format, a description, a TUM file with its intrinsics, or a COLMAP model.

    Files go to `folder`, a new one, under names that we give. Raises ValueError in one line for anything else.
    """
    for path in paths:
        name = shown_name(path)
        _check_size(path, name, limits)
        found = foreign(path)
        if found is not None:
            raise ValueError(f"{name}: its content is {found}; a camera path is text ({', '.join(PATHS)})")
    source = _placed(paths, folder)
    try:
        return _opened(source, shown_name(paths[0]))
    except ValueError as error:
        # Where files lie on this machine is nobody's business.
        raise ValueError(str(error).replace(str(source), shown_name(paths[0]))) from error
    except RecursionError as error:
        raise ValueError(f"{shown_name(paths[0])}: nested too deeply for a camera path") from error


def foreign(path: Path) -> str | None:
    """Say what a file really is, if that is known from its first bytes and nothing we take."""
    with path.open("rb") as file:
        start = file.read(16)
    return next((what for magic, what in FOREIGN.items() if start.startswith(magic)), None)


def shown_name(path: Path) -> str:
    """Return a file's name as it may stand in a message."""
    return re.sub(r"[^\w.\- ]", "_", path.name)[:80]


def _check_size(path: Path, name: str, limits: Limits) -> None:
    size = path.stat().st_size
    if size > limits.upload_bytes:
        raise ValueError(f"{name}: {size / 2**20:.0f} MB; at most {limits.upload_megabytes} MB are taken")
    if size == 0:
        raise ValueError(f"{name}: is empty")


def _placed(paths: Sequence[Path], folder: Path) -> Path:
    """Copy files to where readers find them together; return what to open."""
    names = {path.name: path for path in paths}
    folder.mkdir(parents=True)
    if len(paths) == 1:
        suffix = paths[0].suffix.lower()
        if suffix not in PATHS:
            raise ValueError(
                f"{shown_name(paths[0])}: ends in {suffix or 'nothing'}; a camera path ends in {', '.join(PATHS)}, or "
                f"is a COLMAP model of {', '.join(COLMAP[:4])}, handed in together"
            )
        place = folder / f"{'transforms' if paths[0].name.startswith('transforms') else 'path'}{suffix}"
        shutil.copyfile(paths[0], place)
        return place
    if set(names) <= set(COLMAP):
        for name, path in names.items():
            shutil.copyfile(path, folder / name)
        return folder
    others = [path for name, path in names.items() if name != BESIDE]
    if len(others) == 1 and BESIDE in names and others[0].suffix.lower() in (".tum", ".txt"):
        shutil.copyfile(names[BESIDE], folder / BESIDE)
        shutil.copyfile(others[0], folder / f"path{others[0].suffix.lower()}")
        return folder / f"path{others[0].suffix.lower()}"
    raise ValueError(
        f"{len(paths)} files: one camera path, a COLMAP model ({', '.join(COLMAP[:4])}), or a TUM file with {BESIDE}"
    )


def _opened(source: Path, name: str) -> ChosenPath:
    if source.suffix in SUFFIXES and format_of(source) is None:
        content = read_specification(source)
        if not isinstance(content, dict):
            raise ValueError(f"{name}: no description of a camera path (docs/trajectories.md)")
        return open_path(content, extent=None, files=False)
    return open_path({"file": str(source)}, extent=None)
