"""What `cami2v sample` is asked to make: one image, a folder of them, a list in a file, or clips of a shard set."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cami2v.signature import build_settings

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
DEPTH_MAPS = (".npy", ".npz", ".png")
Trajectories = str | Mapping[str, Any]

OWN = "own"
"""As a trajectory: the cameras that filmed the clip."""
DEFAULT = "orbit_right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image and how to animate it; lists are made in all combinations."""

    image: Path | None
    """None: a clip's."""
    name: str
    """A clip's id."""
    caption: str
    """Empty: the clip's own."""
    negative_caption: str
    trajectory: tuple[Trajectories, ...]
    extent: float | None
    seed: tuple[int, ...]
    depth_map: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A line of a list of jobs; what it leaves out is as the command says."""

    image: Path | None
    name: str | None = None
    caption: str | None = None
    negative_caption: str | None = None
    trajectory: Trajectories | Sequence[Trajectories] | None = None
    extent: float | None = None
    seed: int | Sequence[int] | None = None
    depth_map: Path | None = None


def jobs_of(image: Path | None, listed: Path | None, template: JobRow) -> list[Job]:
    """Make the jobs of `image` (a file or a folder) or of the list in a CSV or JSON file.

    A picture of a folder takes its caption from a text file of its name, where there is one. Raises ValueError in one
    line for a missing or empty place, and for a line that is wrong.
    """
    if (image is None) == (listed is None):
        given = "neither" if image is None else "both"
        raise ValueError(
            f"image and jobs: got {given}; give image=<file or folder>, jobs=<csv or json>, or data.shards=<shard set>"
        )
    if listed is not None:
        rows = _read_rows(listed)
    elif image is not None and image.is_dir():
        rows = [
            JobRow(image=path, caption=_caption_beside(path)) for path in sorted(image.iterdir()) if _is_image(path)
        ]
        if not rows:
            raise ValueError(f"image={image}: no picture in that folder ({', '.join(IMAGES)})")
    else:
        assert image is not None
        rows = [JobRow(image=image)]
    return _named([_job(row, template) for row in rows])


def jobs_of_clips(names: Sequence[str], template: JobRow) -> list[Job]:
    """Make the jobs of clips, by id, along their own cameras where the template says nothing else."""
    own = dataclasses.replace(template, trajectory=OWN if template.trajectory is None else template.trajectory)
    return [_job(JobRow(image=None, name=name), own) for name in names]


def _read_rows(path: Path) -> list[JobRow]:
    if not path.is_file():
        raise ValueError(f"jobs={path}: no such file; give a CSV or JSON file")
    try:
        if path.suffix.lower() == ".json":
            entries = json.loads(path.read_text())
        else:
            with path.open(newline="") as file:
                entries = [_numbers(row) for row in csv.DictReader(file)]
    except (json.JSONDecodeError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"jobs={path}: cannot be read ({error}); expected a list of objects, or a table") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"jobs={path}: expected a list of jobs, each with an image; got {type(entries).__name__}")
    rows = [build_settings(JobRow, entry, f"jobs={path}[{number}]") for number, entry in enumerate(entries)]
    if any(row.image is None for row in rows):
        raise ValueError(f"jobs={path}: a job without an image; give each one")
    return [
        dataclasses.replace(
            row,
            image=path.parent / str(row.image),
            depth_map=None if row.depth_map is None else path.parent / row.depth_map,
        )
        for row in rows
    ]


def _numbers(row: Mapping[str, str | None]) -> dict[str, Any]:
    """Read the cells of a CSV file: empty ones are left out, several values are separated by semicolons."""
    entry: dict[str, Any] = {}
    for key, text in row.items():
        if not text:
            continue
        try:
            if key == "seed":
                entry[key] = [int(part) for part in text.split(";")]
            elif key == "extent":
                entry[key] = float(text)
            else:
                entry[key] = [part.strip() for part in text.split(";")] if key == "trajectory" else text
        except ValueError as error:
            raise ValueError(f"{key}: got {text!r}, expected a number") from error
    return entry


def _job(row: JobRow, template: JobRow) -> Job:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(JobRow):
        own = getattr(row, field.name)
        values[field.name] = getattr(template, field.name) if own is None else own
    name = row.name or (row.image or Path()).stem
    if values["trajectory"] is None:
        values["trajectory"] = DEFAULT
    if values["depth_map"] is not None:
        values["depth_map"] = _depth_of(name if row.image is None else row.image.stem, values["depth_map"])
    for key in ("trajectory", "seed"):
        single = isinstance(values[key], (str, int, Mapping))
        values[key] = (values[key],) if single else tuple(values[key])
        if not values[key]:
            raise ValueError(f"{key}: an empty list; give at least one")
    if row.image is not None and OWN in values["trajectory"]:
        raise ValueError(f"trajectory={OWN}: the cameras of a clip (data.shards), image={row.image} is none")
    return Job(**values | {"name": name})


def _named(jobs: list[Job]) -> list[Job]:
    """Number the names that several jobs share."""
    taken: dict[str, int] = {}
    named = []
    for job in jobs:
        taken[job.name] = taken.get(job.name, 0) + 1
        name = job.name if taken[job.name] == 1 else f"{job.name}-{taken[job.name]}"
        named.append(dataclasses.replace(job, name=name))
    return named


def _depth_of(name: str, given: Path) -> Path:
    """Find a depth map by its image's name, where maps are in a folder. Raises ValueError where it has none there."""
    if not given.is_dir():
        return given
    found = [given / f"{name}{suffix}" for suffix in DEPTH_MAPS if (given / f"{name}{suffix}").is_file()]
    if not found:
        raise ValueError(f"depth_map={given}: has no map {name} ({', '.join(DEPTH_MAPS)})")
    return found[0]


def _caption_beside(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    return text.read_text().strip() if text.is_file() else None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGES and not path.name.startswith(".")
