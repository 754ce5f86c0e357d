"""depth_scale.json: estimated metric scales beside a source folder, where packing finds them (docs/metric-scale.md).

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "depth_scale.json"
FORMAT = "cami2v-depth-scale"
VERSION = 1
MAKE_IT = "cami2v data scale source=<folder>"


@dataclass(frozen=True, slots=True)
class EstimatedScale:
    """An estimate of a clip's metric scale; it holds for the cameras it was made with and no others."""

    metres_per_unit: float
    cameras_sha256: str

    def __float__(self) -> float:
        return self.metres_per_unit


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleFile:
    """The content of a depth_scale.json."""

    procedure: Mapping[str, Any]
    """Depth source, thresholds and version: what the estimates depend on beside the clips."""
    scaled: dict[str, dict[str, Any]]
    """By clip id: metres_per_unit, how well it is known, and `key`, `cameras_sha256` of what it was made from."""
    unscaled: dict[str, dict[str, Any]]
    """By clip id: reason and message."""

    def estimates(self) -> dict[str, EstimatedScale]:
        """Return what packing takes."""
        return {
            clip_id: EstimatedScale(float(row["metres_per_unit"]), str(row["cameras_sha256"]))
            for clip_id, row in self.scaled.items()
        }

    def write(self, path: Path) -> None:
        """Write the file so that it appears complete or not at all; clips in the order of their ids."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "procedure": self.procedure,
            "clips": dict(sorted(self.scaled.items())),
            "clips_without_scale": dict(sorted(self.unscaled.items())),
        }
        partial = path.with_name(f".{path.name}.writing")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def read_scale_file(path: Path) -> ScaleFile:
    """Read a depth_scale.json; raises ValueError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"{path}: format {content['format']!r}, version {content['version']}; {_expected()}")
        file = ScaleFile(
            procedure=dict(content["procedure"]),
            scaled=dict(content["clips"]),
            unscaled=dict(content["clips_without_scale"]),
        )
        file.estimates()
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}; {_expected()}") from error
    return file


def read_beside(folder: Path) -> ScaleFile:
    """Read the estimates beside a source folder; without clips where there are none."""
    path = folder / FILE_NAME
    return read_scale_file(path) if path.is_file() else ScaleFile(procedure={}, scaled={}, unscaled={})


def _expected() -> str:
    return f"expected {FORMAT!r} of version {VERSION}; remove the file, or make it again with {MAKE_IT}"
