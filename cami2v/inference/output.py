"""Videos as files, each with the text it carries: mp4, GIF, WebP, or a folder of frames."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from cami2v.video import read_comment
from cami2v.video_encoding import write_mp4

OutputFormat = Literal["mp4", "gif", "webp", "frames"]
Frames = UInt8[np.ndarray, "frames height width 3"]

WEBP_QUALITY = 90
_COMMENT = "Comment"


def write_output(
    stem: Path, frames: Frames, kind: OutputFormat, *, frames_per_second: float, crf: int, text: str
) -> Path:
    """Write a video as `<stem>.<kind>`, or PNG files into the folder `<stem>`, and return where.

    mp4 is H.264 (yuv420p, constant rate factor `crf`), GIF has 256 colours and repeats, WebP is lossy. Each appears
    complete or not at all.
    """
    if kind == "mp4":
        path = stem.with_name(f"{stem.name}.mp4")
        write_mp4(path, frames, frames_per_second, crf=crf, comment=text)
        return path
    if kind == "frames":
        return _write_frames(stem, frames, text)
    path = stem.with_name(f"{stem.name}.{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    pictures = [Image.fromarray(frame) for frame in frames]
    shown = {"save_all": True, "append_images": pictures[1:], "duration": round(1000 / frames_per_second), "loop": 0}
    if kind == "gif":
        pictures[0].save(partial, "GIF", comment=text.encode(), **shown)
    else:
        pictures[0].save(partial, "WEBP", quality=WEBP_QUALITY, xmp=text.encode(), **shown)
    partial.replace(path)
    return path


def read_text(path: Path) -> str | None:
    """Return what `write_output` stored in a file or folder; None for none. Raises ValueError for unreadable ones."""
    if path.is_dir():
        path = min(path.glob("*.png"), default=path / "0000.png")
    if not path.is_file():
        raise ValueError(f"{path}: no such video; give an mp4, GIF or WebP file, or a folder of frames")
    if path.suffix.lower() not in (".gif", ".webp", ".png"):
        return read_comment(path)
    try:
        with Image.open(path) as image:
            found = image.info.get("comment") or image.info.get("xmp") or image.info.get(_COMMENT)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error})") from error
    return found.decode(errors="replace") if isinstance(found, bytes) else found


def _write_frames(folder: Path, frames: Frames, text: str) -> Path:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, frame in enumerate(frames):
        information = PngInfo()
        if number == 0:
            information.add_itxt(_COMMENT, text)
        Image.fromarray(frame).save(partial / f"{number:04d}.png", pnginfo=information)
    if folder.is_dir():
        shutil.rmtree(folder)
    partial.replace(folder)
    return folder
