"""Which frames of which clips an evaluation judges, with what seed and caption: two that agree here can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from data_pipeline.order import sample_seed

FORMAT = "cami2v-evaluation-manifest"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestClip:
    """One clip; None is not known, and then not compared."""

    clip_id: str
    frame_indices: tuple[int, ...]
    """In the stored clip, or lines of its camera file."""
    frame_stride: int
    seed: int | None
    """Of every random number drawn for the clip."""
    caption_sha256: str | None
    poses_sha256: str | None
    """Of the chosen frames (`poses_sha256`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationManifest:
    """The clips, ordered by id."""

    clips: tuple[ManifestClip, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for no clip, ids that are not unique and in order, and clips of no or negative frames."""
        ids = [clip.clip_id for clip in self.clips]
        if not ids:
            raise ValueError("holds no clips")
        if any(later <= earlier for earlier, later in pairwise(ids)):
            raise ValueError("its clip ids are not unique and in order")
        for clip in self.clips:
            if not clip.frame_indices or min(clip.frame_indices) < 0 or clip.frame_stride < 1:
                raise ValueError(f"clip {clip.clip_id}: frame_indices or frame_stride is impossible")

    @property
    def sha256(self) -> str:
        """Return what two evaluations of the same clips share, however the file is laid out."""
        content = json.dumps([asdict(clip) for clip in self.clips], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Return the ids, in order."""
        return tuple(clip.clip_id for clip in self.clips)

    def frames(self) -> int | None:
        """Return the number of frames of a clip; None where clips differ."""
        counts = {len(clip.frame_indices) for clip in self.clips}
        return counts.pop() if len(counts) == 1 else None

    def as_json(self) -> str:
        """Return the text of the file, a line per clip."""
        rows = ",\n".join(f"  {json.dumps(asdict(clip))}" for clip in self.clips)
        return f'{{\n "format": "{FORMAT}",\n "version": {VERSION},\n "clips": [\n{rows}\n ]\n}}\n'


def manifest_of(clips: Sequence[ManifestClip]) -> EvaluationManifest:
    """Order clips by id. Raises ValueError for none, and for an id that comes twice."""
    return EvaluationManifest(clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)))


def with_seeds(manifest: EvaluationManifest, seed: int) -> EvaluationManifest:
    """Give the clips that have no seed one each, by their place in the list."""
    return manifest_of(
        [
            clip if clip.seed is not None else replace(clip, seed=sample_seed(seed, number))
            for number, clip in enumerate(manifest.clips)
        ]
    )


def read_evaluation_manifest(path: Path, setting: str) -> EvaluationManifest:
    """Read a manifest.json; raises ValueError, naming the setting, for one that is missing or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"format {content['format']}, version {content['version']}")
        return manifest_of(
            [ManifestClip(**{**clip, "frame_indices": tuple(clip["frame_indices"])}) for clip in content["clips"]]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{setting}={path}: not an evaluation manifest ({type(error).__name__}: {error}); expected the "
            "manifest.json of an evaluation's folder"
        ) from error


def caption_sha256(caption: str) -> str:
    """Return the checksum of a caption."""
    return hashlib.sha256(caption.encode()).hexdigest()


def poses_sha256(world_to_camera: Float64[np.ndarray, "frames 3 4"]) -> str:
    """Return the checksum of poses to nine decimals, the digits of RealEstate10K's files."""
    rounded = np.round(world_to_camera, 9) + 0.0  # no negative zeros
    return hashlib.sha256(np.ascontiguousarray(rounded, dtype="<f8").tobytes()).hexdigest()
