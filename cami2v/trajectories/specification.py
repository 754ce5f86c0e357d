"""Camera paths described in YAML or JSON: presets, files, key-frames, mixes and sequences of them, and edits.

A path is a name (`zoom_in`, `zoom_in+look_left`, a file) or a mapping with one of preset, file, mix, sequence,
keyframes, and edits: part, reverse, ease, loop, speed, scale, done in this order (docs/trajectories.md).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import yaml

from cami2v.geometry.pose_files.formats import FORMATS
from cami2v.trajectories import edits
from cami2v.trajectories.files import Interpolation, Timing, read_path
from cami2v.trajectories.keyframes import Interpolation as KeyInterpolation
from cami2v.trajectories.keyframes import KeyFrame, through
from cami2v.trajectories.presets import ALIASES, PRESETS, canonical, look_at, preset_named, preset_path, turned
from cami2v.trajectories.trajectory import CameraPath

EDITS = ("part", "reverse", "ease", "loop", "speed", "scale")
SOURCES = {
    "preset": ("extent", "distance", "turns", "seed"),
    "file": ("format", "timing", "interpolation"),
    "mix": (),
    "sequence": (),
    "keyframes": ("interpolation",),
}
"""What a path is made from, and the keys that belong to it."""
SUFFIXES = (".yaml", ".yml", ".json")
LARGEST_FILE = 2**20
MOST_VALUES = 10_000
DEEPEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a specification something stands, for errors, and the folder that its files are named from."""

    name: str
    folder: Path | None
    """None: it names no files, because who wrote it must not read those of this machine."""
    depth: int = 0

    def inner(self, key: str) -> Place:
        """Go one level deeper."""
        name = f"{self.name}{key}" if key.startswith("[") else f"{self.name}.{key}"
        return Place(name=name, folder=self.folder, depth=self.depth + 1)

    def file(self, name: str) -> Path:
        """Return where a file is; raises ValueError where none may be named."""
        if self.folder is None:
            raise self.wrong(f"names the file {name!r:.60}, and a description that was handed in must not; inline it")
        return self.folder / Path(name).expanduser()

    def wrong(self, message: str) -> ValueError:
        """Make the error."""
        return ValueError(f"{self.name}: {message}")


def read_specification(path: Path) -> Any:
    """Load a YAML or JSON file as plain values. Raises ValueError for one that is none, or larger than a MiB."""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"trajectory file {path}: larger than {LARGEST_FILE // 2**20} MiB, which no description is")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"trajectory file {path}: not YAML or JSON ({' '.join(str(error).split())})") from error
    check_values(content, f"trajectory file {path}")
    return content


def check_values(content: Any, where: str) -> None:
    """Raise ValueError for more values than a description has: YAML's references can make millions of a few lines."""
    waiting, count = [content], 0
    while waiting:
        value = waiting.pop()
        waiting += value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else []
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"{where}: more than {MOST_VALUES} values; a long path belongs in a pose file")


def parse(node: Any, place: Place) -> CameraPath:
    """Make the path that a specification describes; raises ValueError with the full key of what is wrong."""
    if place.depth > DEEPEST:
        raise place.wrong(f"more than {DEEPEST} paths within each other")
    if isinstance(node, str):
        return named(node, place, None)
    if not isinstance(node, Mapping):
        raise place.wrong(f"got {node!r:.60}, expected a name or a mapping with one of {', '.join(SOURCES)}")
    kinds = [key for key in SOURCES if key in node]
    if len(kinds) != 1:
        raise place.wrong(f"has {' and '.join(kinds) or 'none'} of {', '.join(SOURCES)}; give exactly one")
    (kind,) = kinds
    _known_keys(node, (kind, *SOURCES[kind], *EDITS), place)
    try:
        return edited(_source(kind, node, place), node, place)
    except _Placed:
        raise
    except ValueError as error:
        raise _Placed(f"{place.name}: {error}" if not str(error).startswith(place.name) else str(error)) from error


def named(name: str, place: Place, extent: float | None) -> CameraPath:
    """Make the path of a preset, of several at once (`zoom_in+look_left`), or of a file.

    `extent` is that of presets, and the factor on the translations of a file. Raises ValueError for what is neither.
    """
    parts = [canonical(each) for each in name.split("+")]
    if all(each in PRESETS for each in parts):
        paths = [preset_path(each, extent=extent) for each in parts]
        return paths[0] if len(paths) == 1 else edits.mix(paths)
    if place.folder is None:
        preset_named(name)
    path = place.file(name)
    if not path.exists() and not path.suffix:
        close = difflib.get_close_matches(canonical(name), [*PRESETS, *ALIASES], n=1)
        guess = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(
            f"{place.name}={name}: neither a file nor a preset{guess}; the presets are {', '.join(PRESETS)}"
        )
    read = read_path(path)
    return read if extent is None else edits.enlarged(read, extent)


class _Placed(ValueError):
    """An error that already says where."""


def _source(kind: str, node: Mapping[str, Any], place: Place) -> CameraPath:
    value = node[kind]
    if kind == "preset":
        numbers = {key: _number(node[key], place.inner(key)) for key in ("extent", "distance", "turns") if key in node}
        seed = int(_number(node.get("seed", 0), place.inner("seed")))
        return preset_path(canonical(str(value)), seed=seed, **numbers)
    if kind == "file":
        return read_path(
            place.file(str(value)),
            form=_choice(node, "format", (*FORMATS, None), place),
            timing=_choice(node, "timing", get_args(Timing), place),
            interpolation=_choice(node, "interpolation", get_args(Interpolation), place),
        )
    if not isinstance(value, list) or not value:
        raise place.inner(kind).wrong(f"got {value!r:.60}, expected a list")
    inner = [place.inner(kind).inner(f"[{number}]") for number in range(len(value))]
    if kind == "keyframes":
        keys = [_key_frame(key, where) for key, where in zip(value, inner, strict=True)]
        return through(keys, _choice(node, "interpolation", get_args(KeyInterpolation), place))
    if kind == "mix":
        return edits.mix([parse(each, where) for each, where in zip(value, inner, strict=True)])
    shares, paths = [], []
    for each, where in zip(value, inner, strict=True):
        own = dict(each) if isinstance(each, Mapping) else each
        shares.append(_number(own.pop("share", 1.0), where.inner("share")) if isinstance(own, dict) else 1.0)
        paths.append(parse(own, where))
    return edits.sequence(paths, shares)


def edited(path: CameraPath, node: Mapping[str, Any], place: Place) -> CameraPath:
    """Do the edits of a mapping; raises ValueError for wrong ones."""
    if node.get("part") is not None:
        start, end = _numbers(node["part"], 2, place.inner("part"))
        path = edits.part(path, start, end)
    if _flag(node, "reverse", place):
        path = edits.backwards(path)
    path = _ease(path, node.get("ease"), place.inner("ease"))
    loop = _flag(node, "loop", place)
    if loop:
        path = edits.looped(path)
    if "speed" in node:
        path = edits.paced(path, _number(node["speed"], place.inner("speed")), repeats=loop)
    return edits.enlarged(path, _number(node["scale"], place.inner("scale"))) if "scale" in node else path


def _ease(path: CameraPath, ease: Any, place: Place) -> CameraPath:
    """Ease by a name, by the published demo's two numbers, or by four as in CSS; None and `linear` leave the path."""
    if ease is None or ease == "linear":
        return path
    if isinstance(ease, str) and ease in edits.EASINGS:
        return edits.eased(path, edits.EASINGS[ease])
    if not isinstance(ease, list | tuple) or len(ease) not in (2, 4):
        raise place.wrong(f"got {ease!r:.60}, expected one of linear, {', '.join(edits.EASINGS)}, two numbers or four")
    numbers = _numbers(ease, len(ease), place)
    # The published demo's two numbers are the x of control points at heights 0 and 1.
    x1, y1, x2, y2 = numbers if len(numbers) == 4 else (numbers[0], 0.0, numbers[1], 1.0)
    return edits.eased(path, (x1, y1, x2, y2))


def _key_frame(node: Any, place: Place) -> KeyFrame:
    angles = ("yaw_degrees", "pitch_degrees", "roll_degrees")
    if not isinstance(node, Mapping):
        raise place.wrong(
            f"got {node!r:.60}, expected a mapping with at, position, look_at or {', '.join(angles)}, zoom"
        )
    _known_keys(node, ("at", "position", "look_at", *angles, "zoom"), place)
    if "at" not in node:
        raise place.wrong("has no at: its time, from 0 to 1")
    if "look_at" in node and any(angle in node for angle in angles[:2]):
        raise place.wrong("has look_at and angles; give one of them (roll_degrees goes with both)")
    position = torch.tensor(_numbers(node.get("position", [0, 0, 0]), 3, place.inner("position")), dtype=torch.float64)
    yaw, pitch, roll = (
        torch.tensor(math.radians(_number(node.get(angle, 0), place.inner(angle))), dtype=torch.float64)
        for angle in angles
    )
    rotation = turned(yaw, pitch, roll)
    if "look_at" in node:
        target = torch.tensor(_numbers(node["look_at"], 3, place.inner("look_at")), dtype=torch.float64)
        try:
            rotation = look_at(position, target) @ rotation
        except ValueError as error:
            raise place.wrong(str(error)) from error
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = rotation, position
    at, zoom = (_number(node.get(key, 1.0), place.inner(key)) for key in ("at", "zoom"))
    return KeyFrame(at=at, camera_to_world=pose, zoom=zoom)


def _known_keys(node: Mapping[str, Any], known: Collection[str], place: Place) -> None:
    for key in node:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise place.wrong(f"has no key {key!r} here{guess} (keys: {', '.join(known)})")


def _number(value: Any, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise place.wrong(f"got {value!r:.60}, expected a finite number")
    return float(value)


def _numbers(value: Any, count: int, place: Place) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != count:
        raise place.wrong(f"got {value!r:.60}, expected {count} numbers")
    return [_number(each, place) for each in value]


def _flag(node: Mapping[str, Any], key: str, place: Place) -> bool:
    value = node.get(key, False)
    if not isinstance(value, bool):
        raise place.inner(key).wrong(f"got {value!r:.60}, expected true or false")
    return value


def _choice(node: Mapping[str, Any], key: str, allowed: tuple[Any, ...], place: Place) -> Any:
    """Return the chosen word; the first allowed one, or None where that is allowed, by default."""
    value = node.get(key, None if None in allowed else allowed[0])
    if value not in allowed:
        listed = ", ".join(str(each) for each in allowed if each is not None)
        raise place.inner(key).wrong(f"got {value!r:.60}, expected one of {listed}")
    return value
