"""The one way from what a user asks for to a camera path: a name, a file, or a description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cami2v.geometry.pose_files.formats import format_of
from cami2v.trajectories import edits
from cami2v.trajectories.specification import SUFFIXES, Place, check_values, named, parse, read_specification
from cami2v.trajectories.trajectory import CameraPath, Trajectory, relative_to

KEY = "trajectory"
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
OWN_KEYS = ("frames", "condition_frame")
"""Of a whole description, beside those of a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPath:
    """A path, and what its description says beside."""

    path: CameraPath
    frames: int | None
    condition_frame: int | None
    """Whose camera is the world's origin; None: as the path has it."""

    def sample(self, frames: int | None, *, default_frames: int) -> Trajectory:
        """Take `frames` cameras, else as many as the description says or the file has, else `default_frames`."""
        counts = (frames, self.frames, self.path.frames, default_frames)
        trajectory = self.path.sample(next(count for count in counts if count is not None))
        return trajectory if self.condition_frame is None else relative_to(trajectory, self.condition_frame)


def open_path(source: str | Path | Mapping[str, Any], *, extent: float | None, files: bool = True) -> ChosenPath:
    """Make the path of a preset, a sum of presets, a file of any format, or a description (file, mapping, `{...}`).

    Without `files` a mapping that names one is refused: who wrote it must not read those of this machine.

    `extent` is a preset's distance in scene units or angle in radians (None: its own), and a factor on the translations
    of everything else (None: 1). Raises ValueError in one line for whatever is wrong.
    """
    node, place = _opened(source)
    place = place if files else replace(place, folder=None)
    own = node if isinstance(node, Mapping) else {}
    return ChosenPath(
        path=_path(node, place, extent),
        frames=_whole(own, "frames", place, lowest=1),
        condition_frame=_whole(own, "condition_frame", place, lowest=0),
    )


def choose(source: str | Path | Mapping[str, Any], *, frames: int, extent: float | None) -> Trajectory:
    """Sample the path that `open_path` makes."""
    return open_path(source, extent=extent).sample(frames, default_frames=frames)


def name_of(source: str | Path | Mapping[str, Any]) -> str:
    """Return a short name for files that are made from a path."""
    if isinstance(source, Mapping) or str(source).lstrip().startswith("{"):
        return "description"
    return Path(str(source)).stem.replace(" ", "_") or "path"


def _opened(source: str | Path | Mapping[str, Any]) -> tuple[Any, Place]:
    """Load a description, with the folder that its files are named from; names and pose files stay names."""
    here = Place(name=KEY, folder=Path())
    if isinstance(source, Mapping):
        return source, here
    text = str(source)
    if text.lstrip().startswith("{"):
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{KEY}={text:.60}: not YAML ({' '.join(str(error).split())})") from error
        check_values(content, f"{KEY}={text:.60}")
        return content, here
    path = Path(text).expanduser()
    if path.suffix.lower() in VIDEOS:
        raise ValueError(
            f"{KEY}={text}: a video; lift its path first: cami2v trajectory source={text} output={path.stem}.txt"
        )
    if path.is_file() and path.suffix in SUFFIXES and format_of(path) is None:
        return read_specification(path), Place(name=f"{KEY}={text}", folder=path.parent)
    return text, here


def _path(node: Any, place: Place, extent: float | None) -> CameraPath:
    if isinstance(node, str):
        return named(node, place, extent)
    if isinstance(node, Mapping):
        node = {key: value for key, value in node.items() if key not in OWN_KEYS}
    path = parse(node, place)
    return path if extent is None else edits.enlarged(path, extent)


def _whole(node: Mapping[str, Any], key: str, place: Place, *, lowest: int) -> int | None:
    value = node.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise place.inner(key).wrong(f"got {value!r:.60}, expected a whole number from {lowest}")
    return value
