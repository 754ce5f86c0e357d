"""The formats of pose files by name: which one a file has, how it is read and written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cami2v.geometry.pose_files import colmap, motionctrl, realestate10k, transforms, tum
from cami2v.geometry.pose_files.base import PosedFrames


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseFormat:
    """A way to write cameras down."""

    read: Callable[[Path], PosedFrames]
    write: Callable[[Path, PosedFrames], None]
    place: str
    """What a path in this format is called."""
    intrinsics: bool
    """Whether it holds focal lengths and principal points."""


FORMATS = {
    "realestate10k": PoseFormat(
        read=realestate10k.read, write=realestate10k.write, place="<name>.txt", intrinsics=True
    ),
    "cameractrl": PoseFormat(read=realestate10k.read, write=realestate10k.write, place="<name>.txt", intrinsics=True),
    "motionctrl": PoseFormat(read=motionctrl.read, write=motionctrl.write, place="<name>.json", intrinsics=False),
    "colmap": PoseFormat(read=colmap.read, write=colmap.write, place="<folder>/", intrinsics=True),
    "tum": PoseFormat(read=tum.read, write=tum.write, place="<name>.tum", intrinsics=False),
    "tum_opengl": PoseFormat(
        read=functools.partial(tum.read, camera_axes="opengl"), write=tum.write, place="<name>.tum", intrinsics=False
    ),
    "transforms": PoseFormat(read=transforms.read, write=transforms.write, place="transforms.json", intrinsics=True),
}
WRITTEN = tuple(name for name in FORMATS if name != "tum_opengl")
_TUM_FIELDS = 8


def format_of(path: Path) -> str | None:
    """Recognise the format of a file or folder by name and content; None where it is none of them."""
    if path.is_dir():
        if colmap.model_folders(path):
            return "colmap"
        return "transforms" if (path / transforms.FILE_NAME).is_file() else None
    if not path.is_file():
        return None
    if path.suffix == ".tum":
        return "tum"
    if path.name in ("images.txt", "images.bin"):
        return "colmap"
    if path.suffix == ".txt":
        return _format_of_text(path)
    return _format_of_json(path) if path.suffix == ".json" else None


def format_for(path: Path) -> str | None:
    """Return the format in which a new file of this name is written; None where the name does not say."""
    by_suffix = {".txt": "realestate10k", ".tum": "tum", "": "colmap"}
    if path.suffix == ".json":
        return "transforms" if path.stem.startswith("transforms") else "motionctrl"
    return by_suffix.get(path.suffix)


def _format_of_text(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split("#", 1)[0].split()
            if fields:
                return "tum" if len(fields) == _TUM_FIELDS and _are_numbers(fields) else "realestate10k"
    return "realestate10k"


def _format_of_json(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return "motionctrl"
    if isinstance(content, dict):
        return "transforms" if "frames" in content and not isinstance(content["frames"], int) else None
    return "motionctrl"


def _are_numbers(fields: list[str]) -> bool:
    try:
        return all(isinstance(float(field), float) for field in fields)
    except ValueError:
        return False
