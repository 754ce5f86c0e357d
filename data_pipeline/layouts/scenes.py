"""Layouts of one folder per clip: the source folder itself, or its subfolders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def scene_folders(folder: Path, is_scene: Callable[[Path], bool]) -> list[Path]:
    """Return the folder itself if it is a scene, otherwise those of its subfolders that are."""
    if is_scene(folder):
        return [folder]
    return [each for each in sorted(folder.iterdir()) if each.is_dir() and is_scene(each)]


def scene_id(scene: Path) -> str:
    """Return the clip id of a scene: the name of its folder."""
    return scene.resolve().name
