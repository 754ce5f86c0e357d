"""What an evaluation leaves on disk, so that each stage runs alone and restarts where it stopped.

<folder>/evaluation.json                   what is evaluated; a folder never mixes two evaluations
         manifest.json                     the clips to account for, with their frames and seeds
         camera_effect.json                how much the model's prediction depends on the trajectory
         machines/<stage>-<hash>.json      hardware and versions that generated or measured, a file for each kind
         cameras/<clip>.npz                the requested cameras; without a manifest, the clips to account for
         videos/<video set>/<clip>.mp4     ground_truth, generated, generated_stationary, generated_shuffled
         measurements/<measure>/<video set>/<clip>.json
         results.json results.csv report.md
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from cami2v.batch import Cameras

GROUND_TRUTH = "ground_truth"
GENERATED = "generated"
STATIONARY = "generated_stationary"
SHUFFLED = "generated_shuffled"
CAMERA_EFFECT = "camera_effect.json"
MANIFEST = "manifest.json"
GENERATE, MEASURE = STAGES = ("generate", "measure")
"""Stages that record what they run on."""
FRAMES_ONLY = frozenset({STATIONARY, SHUFFLED})
"""Sets whose frames are compared but whose paths are not estimated: they answer whether the camera matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedCameras:
    """The cameras of one clip as stored; intrinsics belong to frames of `height` x `width`."""

    world_to_camera: Float64[np.ndarray, "frames 3 4"]
    intrinsics_pixels: Float64[np.ndarray, "frames 4"]
    translation_scale: Float64[np.ndarray, " frames"]
    height: int
    width: int
    metric: bool = False
    """Whether `translation_scale` takes translations to metres (scale policy `metric`)."""

    def batch(self) -> Cameras:
        """Return the cameras as a batch of one clip."""
        return Cameras(
            world_to_camera=torch.from_numpy(self.world_to_camera)[None],
            intrinsics_pixels=torch.from_numpy(self.intrinsics_pixels)[None],
            translation_scale=torch.from_numpy(self.translation_scale)[None],
            height=self.height,
            width=self.width,
        )


class EvaluationFolder:
    """Paths and small files of one evaluation."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def manifest(self) -> Path:
        """Return where the list of clips lies."""
        return self.root / MANIFEST

    def video(self, video_set: str, clip_id: str) -> Path:
        """Return where a clip's video lies."""
        return self.root / "videos" / video_set / f"{_file_name(clip_id)}.mp4"

    def cameras(self, clip_id: str) -> Path:
        """Return where a clip's requested cameras lie."""
        return self.root / "cameras" / f"{_file_name(clip_id)}.npz"

    def measurement(self, measure: str, video_set: str, clip_id: str) -> Path:
        """Return where what a measure says of a clip lies."""
        return self.root / "measurements" / measure / video_set / f"{_file_name(clip_id)}.json"

    def clip_ids(self) -> list[str]:
        """List the clips to account for, sorted."""
        if self.manifest.exists():
            return [clip["clip_id"] for clip in read_json(self.manifest)["clips"]]
        return sorted(path.stem for path in (self.root / "cameras").glob("*.npz"))

    def video_sets(self) -> list[str]:
        """List the video sets, ground truth first."""
        names = sorted(path.name for path in (self.root / "videos").glob("*") if path.is_dir())
        return sorted(names, key=lambda name: (name != GROUND_TRUTH, name))

    def write_cameras(self, clip_id: str, cameras: RequestedCameras) -> None:
        """Store a clip's cameras; the file appears complete or not at all."""
        path = self.cameras(clip_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                world_to_camera=cameras.world_to_camera,
                intrinsics_pixels=cameras.intrinsics_pixels,
                translation_scale=cameras.translation_scale,
                size=np.array([cameras.height, cameras.width]),
                metric=np.array(cameras.metric),
            )
        partial.replace(path)

    def read_cameras(self, clip_id: str) -> RequestedCameras:
        """Load a clip's cameras."""
        return read_requested(self.cameras(clip_id))

    def claim(self, identity: Mapping[str, Any], manifest: str | None = None) -> None:
        """Record what this folder evaluates, and its list of clips (`manifest`, the text of that file).

        Any number of processes may do so at once. Raises ValueError where it already holds another evaluation.
        """
        path, identity = self.root / "evaluation.json", json.loads(json.dumps(identity))
        if not path.exists():
            _write_first(path, _json_text(identity))
        stored = read_json(path)
        for key in sorted(stored.keys() | identity.keys()):
            if stored.get(key) != identity.get(key):
                raise ValueError(
                    f"{self.root}: holds an evaluation with {key}={stored.get(key)!r}, this one has "
                    f"{identity.get(key)!r}; choose another output folder, or delete this one"
                )
        if manifest is not None and not self.manifest.exists():
            _write_first(self.manifest, manifest)

    def camera_effect(self) -> dict[str, Any] | None:
        """Return what was recorded of the model's camera; None where no model was evaluated."""
        path = self.root / CAMERA_EFFECT
        return read_json(path) if path.exists() else None

    def record_camera_effect(self, record: Mapping[str, Any]) -> None:
        """Store how much the model's prediction depends on the trajectory."""
        write_json(self.root / CAMERA_EFFECT, dict(record))

    def record_machine(self, stage: str, record: Mapping[str, Any]) -> None:
        """Store what a stage ran on; equal machines are one record."""
        text = _json_text(dict(record))
        path = self.root / "machines" / f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        if not path.exists():
            _write_first(path, text)

    def machines(self, stage: str) -> list[dict[str, Any]]:
        """Return every kind of machine that a stage is known to have run on."""
        return [read_json(path) for path in sorted((self.root / "machines").glob(f"{stage}-*.json"))]

    def identity(self) -> dict[str, Any]:
        """Return what `claim` recorded; empty for a folder of videos made elsewhere."""
        path = self.root / "evaluation.json"
        return read_json(path) if path.exists() else {}


def read_requested(path: Path) -> RequestedCameras:
    """Load cameras that `write_cameras` stored; raises ValueError for another file."""
    try:
        with np.load(path) as stored:
            return RequestedCameras(
                world_to_camera=stored["world_to_camera"],
                intrinsics_pixels=stored["intrinsics_pixels"],
                translation_scale=stored["translation_scale"],
                height=int(stored["size"][0]),
                width=int(stored["size"][1]),
                metric=bool(stored["metric"]) if "metric" in stored else False,
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not the cameras of an evaluation ({type(error).__name__}: {error})") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file appears complete or not at all, whoever else writes it at the same time."""
    _partial(path, _json_text(content)).replace(path)


def _write_first(path: Path, text: str) -> None:
    """Write a file unless somebody else has; of several processes that try at once, one succeeds."""
    partial = _partial(path, text)
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:
        # No hard links here: equal evaluations write equal bytes, so that the last one may as well win.
        partial.replace(path)
    partial.unlink(missing_ok=True)


def _partial(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    return partial


def _json_text(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def _file_name(clip_id: str) -> str:
    if not clip_id or clip_id.startswith(".") or "/" in clip_id or "\\" in clip_id:
        raise ValueError(f"clip id {clip_id!r} cannot name a file: it must not be empty, start with '.' or contain '/'")
    return clip_id
