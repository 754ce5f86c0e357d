"""The manifest of a cache: which clips, encoded by what and how (docs/caches.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_pipeline.cache.rows import NumberFormat
from data_pipeline.manifest import FILE_NAME, ShardEntry

FORMAT = "cami2v-encoded-clips"
VERSION = 1
FRAMING = "cover, centre crop"
EMPTY_CAPTION, BLANK_IMAGE = "empty_caption.npy", "blank_image.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What clips were encoded by, and how."""

    encoders: dict[str, str]
    """Identity of each frozen tower that was used: `first_stage`, `text` and, where its tokens are stored, `image`."""
    resolution: tuple[int, int]
    dtype: NumberFormat
    precision: str
    """Number format of the towers' arithmetic."""
    frames_at_once: int

    @property
    def image_tokens(self) -> bool:
        """Whether image tokens are stored."""
        return "image" in self.encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedShard:
    """The encoded clips of one shard."""

    entry: ShardEntry | None
    """None where no clip could be encoded: there is no file then."""
    source: str
    source_sha256: str
    clips: dict[str, str]
    """Content of each clip by sample key, in the order of the file."""
    unusable: dict[str, str]
    """Why a clip could not be encoded, by sample key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheManifest:
    """Everything the manifest says."""

    encoding: Encoding
    rows: dict[str, tuple[int, ...]]
    """Shape of a row of `moments`, `text` and, where stored, `image`."""
    latent_channels: int
    """Of the mean; the log-variance, where the first stage has one, follows it."""
    blanks: dict[str, str]
    """Checksum of the files of the empty caption and the blank image."""
    generator: dict[str, Any]
    input_sha256: str
    splits: dict[str, tuple[EncodedShard, ...]]


def clip_content(video_sha256: str, about: Mapping[str, Any]) -> str:
    """Return the hash of everything about a clip that its encoding depends on; the cameras are not part of it."""
    content = [video_sha256, about["pixel_aspect"], about["captions"]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def write_cache_manifest(manifest: CacheManifest, folder: Path) -> None:
    """Write manifest.json so that it appears complete or not at all."""
    content = {"format": FORMAT, "version": VERSION, "framing": FRAMING, **asdict(manifest)}
    partial = folder / f".{FILE_NAME}.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / FILE_NAME)


def read_cache_manifest(folder: Path, key: str = "data.cache") -> CacheManifest:
    """Read a cache's manifest. Raises ValueError, naming `key`, for a folder that is no cache of this version."""
    path = folder / FILE_NAME
    make_it = "make one with `cami2v data encode shards=<shard set> output=<folder>`"
    if not path.is_file():
        what = f"has no {FILE_NAME}, so it is no complete cache" if folder.is_dir() else "does not exist"
        raise ValueError(f"{key}={folder}: {what}; {make_it}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error}); {make_it}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a cache of encoded clips (format must be {FORMAT!r}); {make_it}")
    if (content.get("version"), content.get("framing")) != (VERSION, FRAMING):
        raise ValueError(
            f"{path}: version {content.get('version')} ({content.get('framing')}), this program reads {VERSION} "
            f"({FRAMING}); {make_it}"
        )
    try:
        encoding = content["encoding"]
        return CacheManifest(
            encoding=Encoding(
                encoders=encoding["encoders"],
                resolution=(encoding["resolution"][0], encoding["resolution"][1]),
                dtype=NumberFormat(encoding["dtype"]),
                precision=encoding["precision"],
                frames_at_once=encoding["frames_at_once"],
            ),
            rows={name: tuple(shape) for name, shape in content["rows"].items()},
            latent_channels=content["latent_channels"],
            blanks=content["blanks"],
            generator=content["generator"],
            input_sha256=content["input_sha256"],
            splits={name: tuple(map(_shard, shards)) for name, shards in content["splits"].items()},
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: incomplete ({type(error).__name__}: {error}); {make_it}") from error


def _shard(value: dict[str, Any]) -> EncodedShard:
    entry = value["entry"]
    return EncodedShard(**{**value, "entry": None if entry is None else ShardEntry(**entry)})
