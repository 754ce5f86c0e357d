"""From the fields of the trajectory editor to a camera path, through the descriptions of docs/trajectories.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cami2v.inference.app.uploads import COLMAP, shown_name
from cami2v.trajectories.choose import ChosenPath, open_path
from cami2v.trajectories.keyframes import Interpolation
from cami2v.trajectories.presets import preset_named
from cami2v.trajectories.specification import Place, edited
from cami2v.trajectories.trajectory import Trajectory, relative_to

Kind = Literal["preset", "key-frames", "file"]
COLUMNS = ("at", "right", "down", "ahead", "yaw", "pitch", "roll", "zoom")
"""Of the table of key-frames: time from 0 to 1, position in scene units, degrees, factor on the focal length."""
KEY_FRAMES = ((0, 0, 0, 0, 0, 0, 0, 1), (0.5, 0.3, 0, 0.2, -10, 0, 0, 1), (1, 0.5, -0.1, 0.6, -20, 5, 0, 1))
"""What the table begins with."""
MOST_KEY_FRAMES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Editor:
    """What the fields say."""

    kind: Kind
    motion: str
    together: str
    """A second preset at the same time; empty: none."""
    amount: float
    """Times the presets' own extents."""
    distance: float
    """Of the subject, in scene units."""
    table: Sequence[Sequence[Any]]
    interpolation: Interpolation
    uploaded: tuple[ChosenPath, str] | None
    """A path from a file, and the file's name."""
    ease: str
    speed: float
    scale: float
    start: float
    end: float
    reverse: bool
    loop: bool
    condition_frame: int

    def description(self) -> dict[str, Any]:
        """Return what `cami2v sample trajectory=` would be told. Raises ValueError for what cannot be said so."""
        if self.kind == "file":
            raise ValueError("trajectory: a path from a file is described by that file")
        if self.kind == "key-frames":
            source: dict[str, Any] = {"keyframes": _key_frames(self.table), "interpolation": self.interpolation}
        elif self.together:
            source = {"mix": [self._preset(self.motion), self._preset(self.together)]}
        else:
            source = self._preset(self.motion)
        return {**source, **self.edits()}

    def edits(self) -> dict[str, Any]:
        """Return the edits that change something."""
        every: dict[str, Any] = {
            "part": [self.start, self.end], "reverse": self.reverse, "ease": self.ease, "loop": self.loop,
            "speed": self.speed, "scale": self.scale,
        }  # fmt: skip
        nothing = {"part": [0, 1], "reverse": False, "ease": "linear", "loop": False, "speed": 1, "scale": 1}
        return {key: value for key, value in every.items() if value != nothing[key]}

    def name(self) -> str:
        """Return a short name."""
        if self.kind == "preset":
            return f"{self.motion}+{self.together}" if self.together else self.motion
        return self.uploaded[1] if self.kind == "file" and self.uploaded is not None else self.kind

    def does(self) -> str:
        """Say in words what a preset does."""
        if self.kind != "preset":
            return ""
        names = [self.motion, *([self.together] if self.together else [])]
        return " and ".join(preset_named(name).does for name in names)

    def cameras(self, frames: int) -> Trajectory:
        """Return cameras relative to the picture's. Raises ValueError in one line for fields that make no path."""
        if self.kind == "file":
            if self.uploaded is None:
                raise ValueError("trajectory: no file yet; hand one in, or choose a preset")
            path = edited(self.uploaded[0].path, self.edits(), Place(name="trajectory", folder=None))
            chosen = ChosenPath(path=path, frames=frames, condition_frame=None)
        else:
            chosen = open_path(self.description(), extent=None, files=False)
        return relative_to(chosen.sample(frames, default_frames=frames), self.condition_frame)

    def _preset(self, name: str) -> dict[str, Any]:
        return {"preset": name, "extent": self.amount * preset_named(name).extent, "distance": self.distance}


def _key_frames(table: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    rows = [row for row in table if any(cell not in (None, "") for cell in row)]
    if len(rows) > MOST_KEY_FRAMES:
        raise ValueError(f"key-frames: {len(rows)} rows; at most {MOST_KEY_FRAMES}, a longer path belongs in a file")
    return [_key_frame(number, row) for number, row in enumerate(rows, start=1)]


def one_more(table: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Add a key-frame like the last one; those before make room in time."""
    rows = [list(row) for row in table]
    last = list(rows[-1]) if rows else list(KEY_FRAMES[0])
    for row in rows:
        if isinstance(row[0], (int, float)):
            row[0] = round(row[0] * max(1, len(rows) - 1) / len(rows), 4)
    return [*rows, [1, *last[1:]]]


def _key_frame(number: int, row: Sequence[Any]) -> dict[str, Any]:
    cells = [_cell(number, name, cell) for name, cell in zip(COLUMNS, row, strict=True)]
    at, right, down, ahead, yaw, pitch, roll, zoom = cells
    return {
        "at": at, "position": [right, down, ahead], "yaw_degrees": yaw, "pitch_degrees": pitch, "roll_degrees": roll,
        "zoom": zoom,
    }  # fmt: skip


def _cell(number: int, name: str, value: Any) -> float:
    """Read a cell; an empty one is 0, of the zoom 1, of the time wrong."""
    if value in (None, "") and name != "at":
        return 1.0 if name == "zoom" else 0.0
    try:
        read = float(value)
    except (TypeError, ValueError):
        read = math.nan
    if not math.isfinite(read):
        raise ValueError(f"key-frames, row {number}, {name}: got {str(value)[:20]!r}, expected a number")
    return read


def uploaded_name(paths: Sequence[Path]) -> str:
    """Return what an uploaded path is called."""
    return "COLMAP model" if len(paths) > 1 and paths[0].name in COLMAP else Path(shown_name(paths[0])).stem[:40]
