"""Captions that somebody published, in the forms they come in, brought to the file that `pack` reads.

* JSON {"<clip>.mp4": ["<caption>", ...] or "<caption>"}: RealEstate10K's captions as CameraCtrl and CamI2V give them
* a table, one record per clip: a JSON list, JSON lines, or CSV with a header; names and texts under `_NAMES`, `_TEXTS`
* a folder of camera files <clip>.txt or <split>/<clip>.txt whose third line is the caption: CamI2V's valid_metadata
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipeline.bad_clips import BadClip
from data_pipeline.clips.record import write_whole
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.layouts.clip_lists import texts_of
from data_pipeline.layouts.ids import clip_id_of
from data_pipeline.realestate10k.parse import parse_pose_file, read_caption_file

FILE_NAME = "captions-published.json"

_NAMES = ("clip", "clip_path", "file_path", "video_path", "video", "path", "name", "id", "key")
_TEXTS = ("caption", "captions", "text", "long_caption", "short_caption")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What was found in published captions."""

    clips: int
    captioned: int
    """Clips of the folder that the published captions know."""
    without: tuple[str, ...]
    """Clips of the folder that have no caption, from there or elsewhere."""
    foreign: tuple[str, ...]
    """Names of the published captions that no clip of the folder has."""

    def lines(self) -> list[str]:
        """Say it in a few lines."""
        lines = [f"{self.clips} clips: {self.captioned} found in the published captions"]
        if self.without:
            lines.append(f"  without any caption: {len(self.without)} ({_first(self.without)})")
        if self.foreign:
            lines.append(f"  published for clips that are not here: {len(self.foreign)} ({_first(self.foreign)})")
        return lines


def convert_captions(paths: Sequence[Path], clips: Sequence[PosedClip], output: Path) -> Conversion:
    """Write the captions of a folder's clips to `output`/captions-published.json; later paths win.

    Raises ValueError for a path that holds no captions in a known form, and where no name fits any clip.
    """
    published: dict[str, tuple[str, ...]] = {}
    for path in paths:
        published |= read_published(path)
    ids = {clip.clip_id for clip in clips}
    found: dict[str, tuple[str, ...]] = {}
    foreign = []
    for name, texts in published.items():
        whole, last = clip_id_of(PurePosixPath(name)), PurePosixPath(name).stem
        clip_id = next((each for each in (whole, last) if each in ids), None)
        if clip_id is None:
            foreign.append(name)
        elif texts:
            found[clip_id] = texts
    if not found:
        raise ValueError(
            f"captions={paths[0]}: {len(published)} captions, none of a clip here; they are for {_first(foreign)}, "
            f"the clips are {_first(sorted(ids))}"
        )
    content = {f"{clip_id}.mp4": list(found[clip_id]) for clip_id in sorted(found)}
    write_whole(output / FILE_NAME, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    without = tuple(clip.clip_id for clip in clips if not clip.captions and clip.clip_id not in found)
    return Conversion(clips=len(ids), captioned=len(found), without=without, foreign=tuple(foreign))


def read_published(path: Path) -> dict[str, tuple[str, ...]]:
    """Read captions by the names they are published under; raises ValueError for a form that is not known."""
    if path.is_dir():
        return _of_camera_files(path)
    if not path.is_file():
        raise ValueError(f"captions={path}: no such file or folder")
    if path.suffix == ".json" and _is_mapping(path):
        return read_caption_file(path)
    return {name: texts for number, record in enumerate(_records(path)) for name, texts in [_row(record, path, number)]}


def _is_mapping(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip().startswith(b"{")


def _records(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            yield from csv.DictReader(text.splitlines())
        elif path.suffix == ".jsonl":
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
        elif path.suffix == ".json":
            yield from json.loads(text)
        else:
            raise ValueError("is no .json, .jsonl or .csv file")
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"captions={path}: {error}; the forms that can be read are in docs/caption.md") from error


def _row(record: Any, path: Path, number: int) -> tuple[str, tuple[str, ...]]:
    if isinstance(record, Mapping):
        name = next((str(record[key]) for key in _NAMES if record.get(key)), None)
        text = next((record[key] for key in _TEXTS if record.get(key)), None)
        if name is not None:
            return name, texts_of(text)
    raise ValueError(f"captions={path} entry {number}: has no name of a clip; expected one of {', '.join(_NAMES)}")


def _of_camera_files(folder: Path) -> dict[str, tuple[str, ...]]:
    captions = {}
    for path in sorted({*folder.glob("*.txt"), *folder.glob("*/*.txt")}):
        try:
            captions[path.stem] = texts_of(parse_pose_file(path).caption)
        except BadClip as error:
            raise ValueError(f"captions={folder}: {error}") from error
    if not captions:
        raise ValueError(
            f"captions={folder}: no <clip>.txt or <split>/<clip>.txt; give a caption file, or such a folder"
        )
    return captions


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
