"""The published test metadata (`*_test_metadata_1k.pth`): which clips, by what caption. No pickled code is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cami2v.checkpoints.torch_files import read_torch_file
from data_pipeline.evaluation_manifest import EvaluationManifest, manifest_of
from data_pipeline.layouts.ids import clip_id_of
from data_pipeline.loader import ClipLoader

SUFFIXES = (".pth", ".pt")
NAMES = ("video_path", "clip_path", "video", "path", "clip_name", "name", "id", "key")
CAPTIONS = ("caption", "long_caption", "short_caption", "captions")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedClip:
    """A clip of the list."""

    name: str
    caption: str | None

    @property
    def ids(self) -> tuple[str, str]:
        """Return what the clip may be called in a shard set: its path, or the last part of it."""
        path = PurePosixPath(self.name)
        return clip_id_of(path), path.stem


def read_published_metadata(path: Path) -> tuple[PublishedClip, ...]:
    """Read the list; raises ValueError, in one line, for a file that is none or names no clips."""
    if not path.is_file():
        raise ValueError(f"evaluation.manifest={path}: no such file")
    clips = tuple(_clip(name, record, path) for name, record in _records(read_torch_file(path), path))
    if not clips:
        raise ValueError(f"evaluation.manifest={path}: holds no clips")
    return clips


def published_manifest(
    published: Sequence[PublishedClip], loader: ClipLoader, source: str, count: int | None
) -> EvaluationManifest:
    """Take the first frames of the first `count` of these clips (None: all), at the loader's stride.

    Raises ValueError, naming `source`, for clips that the split does not have.
    """
    clips, wanted = loader.chosen((), source), published[:count]
    found = [next((name for name in clip.ids if name in clips.by_id), None) for clip in wanted]
    if missing := [clip.name for clip, name in zip(wanted, found, strict=True) if name is None]:
        raise ValueError(
            f"{source}: {len(missing)} of its {len(found)} clips are not in {loader.store.name} split "
            f"{loader.split_name} (first {missing[0]}); pack them, or choose the split that has them"
        )
    return manifest_of(
        [clips.describe(str(name), clip.caption, None) for clip, name in zip(wanted, found, strict=True)]
    )


def _records(held: Any, path: Path) -> list[tuple[str, Any]]:
    """Return the records, each with what names it: a list of them, one by name, or the one such value of a dict."""
    if isinstance(held, Mapping):
        if held and all(isinstance(value, Mapping) and value for value in held.values()):
            return [(str(name), record) for name, record in held.items()]
        lists = [value for value in held.values() if isinstance(value, list | tuple) and value]
        lists = [value for value in lists if all(isinstance(record, Mapping) for record in value)]
        if len(lists) == 1:
            held = lists[0]
    if not isinstance(held, list | tuple):
        raise ValueError(f"evaluation.manifest={path}: a {type(held).__name__}, expected a list of clips")
    return [(f"entry {number}", record) for number, record in enumerate(held)]


def _clip(given: str, record: Any, path: Path) -> PublishedClip:
    where = f"evaluation.manifest={path} {given}"
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: a {type(record).__name__}, expected a record with {NAMES[0]}")
    name = next((record[key] for key in NAMES if isinstance(record.get(key), str) and record[key]), None)
    if name is None and not given.startswith("entry "):
        name = given
    if name is None:
        raise ValueError(f"{where}: has no name of a clip; expected one of {', '.join(NAMES)}")
    caption = next((record[key] for key in CAPTIONS if record.get(key)), None)
    if isinstance(caption, list | tuple):
        caption = caption[0]
    return PublishedClip(name=name, caption=caption.strip() if isinstance(caption, str) else None)
