"""The manifest of a shard set: what is in it, checked before anything else is opened (docs/data-format.md)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from cami2v.file_hash import file_sha256

FORMAT = "cami2v-posed-clips"
VERSION = 1
FILE_NAME = "manifest.json"
POSE_CONVENTION = "world_to_camera, OpenCV axes (x right, y down, z forward)"
INTRINSICS_CONVENTION = "fx fy cx cy divided by width and height of the packed frame"
_MAKE_IT = "write one with `cami2v pack source=<folder> output=<folder>`"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One tar file."""

    name: str
    samples: int
    bytes: int
    sha256: str
    shortest_clip_frames: int

    def matches(self, path: Path) -> bool:
        """Tell whether the file at `path` has this shard's size and checksum."""
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        return file_sha256(path) == self.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The shards of one split and the source videos its clips come from."""

    samples: int
    shards: tuple[ShardEntry, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything the manifest says."""

    scale_policy: str
    """What the loader does with translations unless told otherwise: a cami2v.geometry.pose_scale.ScalePolicy."""
    frame_format: dict[str, Any]
    generator: dict[str, Any]
    seed: int
    input_sha256: str
    """Of everything that was packed and how: equal for equal content."""
    splits: dict[str, Split]
    metric_scale: dict[str, Any] = field(default_factory=dict)
    """Number of clips whose scale was given, estimated (and by which procedure), or is not known; older sets: empty."""

    @property
    def is_metric(self) -> bool:
        """Whether every clip has a metric scale; older sets say so by their policy."""
        return self.metric_scale["without"] == 0 if self.metric_scale else self.scale_policy == "metric"

    def split(self, name: str, where: str) -> Split:
        """Return a split; raises ValueError that lists what there is."""
        if name not in self.splits:
            raise ValueError(f"data.split={name}: {where} has no such split (it has: {', '.join(sorted(self.splits))})")
        return self.splits[name]


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json so that it appears complete or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "pose_convention": POSE_CONVENTION,
        "intrinsics_convention": INTRINSICS_CONVENTION,
        **asdict(manifest),
    }
    partial = folder / f".{FILE_NAME}.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / FILE_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a shard set's manifest.

    Raises ValueError for a missing or foreign manifest, another format version, or splits that share a source video.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        what = "has no manifest.json, so it is no complete shard set" if folder.is_dir() else "does not exist"
        raise ValueError(f"data.shards={folder}: {what}; {_MAKE_IT}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error}); {_MAKE_IT}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a manifest of posed clips (format must be {FORMAT!r}); {_MAKE_IT}")
    if content.get("version") != VERSION:
        raise ValueError(f"{path}: format version {content.get('version')}, this program reads {VERSION}; {_MAKE_IT}")
    try:
        manifest = Manifest(
            scale_policy=content["scale_policy"],
            frame_format=content["frame_format"],
            generator=content["generator"],
            seed=content["seed"],
            input_sha256=content["input_sha256"],
            splits={name: _split(value) for name, value in content["splits"].items()},
            metric_scale=content.get("metric_scale", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: incomplete ({type(error).__name__}: {error}); {_MAKE_IT}") from error
    check_disjoint({name: set(split.sources) for name, split in manifest.splits.items()}, str(path))
    return manifest


def check_disjoint(sources: dict[str, set[str]], where: str) -> None:
    """Raise ValueError where two splits share a source video: a model would be judged on what it was trained on."""
    for (first, left), (second, right) in combinations(sorted(sources.items()), 2):
        if shared := sorted(left & right):
            raise ValueError(
                f"{where}: splits {first} and {second} share {len(shared)} source videos ({', '.join(shared[:3])}); "
                "clips of one source video must be in one split"
            )


def _split(value: dict[str, Any]) -> Split:
    return Split(
        samples=value["samples"],
        shards=tuple(ShardEntry(**entry) for entry in value["shards"]),
        sources=tuple(value["sources"]),
    )
