"""The Frechet video distance as a measure: a row holds a clip's features, the distance is taken between whole sets."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from cami2v.checkpoints.local_weights import released_weights
from cami2v.evaluation.folder import GROUND_TRUTH
from cami2v.evaluation.frechet import FeatureMoments, extrapolated_distance, frechet_distance
from cami2v.evaluation.fvd_flavours import find_flavour
from cami2v.evaluation.measures.base import Frames, JudgedClip, Row, UnusableVideo
from cami2v.evaluation.measures.network import NetworkMeasure, Precision, repeatable
from cami2v.evaluation.video_detectors import VideoDetector

Features = Float32[np.ndarray, " features"]

_BLOCKS = 10
"""Parts of a set, added one by one, from which the distance at other numbers of videos is taken."""
_TOO_SHORT = "too few frames"


class VideoFeatures(NetworkMeasure):
    """Compares the features of all videos of a set with those of the true videos, as Gaussians, in float64.

    `flavour` names one of `fvd_flavours.FLAVOURS`. `extrapolate` also gives the distance that more and more videos
    would tend to (arXiv 1911.07023). A row has failure and detail, or frames, height, width, and `features`: float32,
    little-endian, base64.
    """

    def __init__(
        self,
        *,
        flavour: str,
        weights: str | Path | None,
        sha256: str | None,
        precision: Precision,
        extrapolate: bool,
    ) -> None:
        self.flavour = find_flavour(flavour)
        key = f"evaluation.measures.{self.flavour.name}"
        found = released_weights(self.flavour.weights, path=weights, sha256=sha256, key=key)
        super().__init__(weights=found, precision=precision)
        self.extrapolate = extrapolate

    @property
    def name(self) -> str:
        """Return the flavour's name."""
        return self.flavour.name

    def load(self, weights: Path) -> VideoDetector:
        """Build the flavour's detector."""
        return self.flavour.load(weights)

    def describe(self) -> dict[str, Any]:
        """Return flavour, weights and precision. Raises ValueError for absent or unexpected weights."""
        return {
            "flavour": self.flavour.name,
            "network": self.flavour.network,
            "resize": self.flavour.resize,
            **super().describe(),
        }

    def judge(self, clip: JudgedClip) -> Row:
        """Compute a clip's features, over all its frames."""
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return {"failure": frames.reason.value, "detail": frames.detail}
        return self.judge_frames(frames)

    def judge_frames(self, frames: Frames) -> Row:
        """Compute the features of any video."""
        detector = self.network
        assert isinstance(detector, VideoDetector)
        if len(frames) < detector.min_frames:
            return {"failure": _TOO_SHORT, "detail": f"{len(frames)}, the network needs {detector.min_frames}"}
        videos = torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))[None]
        with repeatable():
            features = detector(videos)[0].float().cpu().numpy()
        return {
            "failure": None, "detail": "", "frames": len(frames), "height": frames.shape[1],
            "width": frames.shape[2], "features": packed(features),
        }  # fmt: skip

    def recorded(self, row: Row) -> Row:
        """Return a row without its features."""
        return {key: value for key, value in row.items() if key != "features"}

    def distances(self, rows: Mapping[str, Iterable[Row]]) -> dict[str, dict[str, Any]]:
        """Return every set's distance to the true videos; for these themselves, that of their two halves."""
        sums = {video_set: FeatureSums.of(own, halves=video_set == GROUND_TRUTH) for video_set, own in rows.items()}
        truth = sums.get(GROUND_TRUTH, FeatureSums.of(()))
        return {name: self._distance(own, truth, halves=name == GROUND_TRUTH) for name, own in sums.items()}

    def _distance(self, sums: FeatureSums, truth: FeatureSums, *, halves: bool) -> dict[str, Any]:
        own, true = (sums.halves[:1], sums.halves[1:]) if halves else (sums.blocks, truth.blocks)
        counts = [sum(each.count for each in moments) for moments in (own, true)]
        notes = self._notes(sums, truth, counts)
        value = extrapolated = None
        if min(counts) >= 2:
            value = float(frechet_distance(total(own), total(true)))
            if self.extrapolate and not halves:
                extrapolated = extrapolated_distance(own, true)
        sizes = sorted(sums.sizes)
        return {
            "label": self.flavour.label,
            "value": value,
            **({"extrapolated": extrapolated} if self.extrapolate else {}),
            "compared": "one half of the true videos with the other" if halves else "with the true videos",
            "clips": counts[0],
            "true_clips": counts[1],
            "frames": ", ".join(dict.fromkeys(str(frames) for frames, _, _ in sizes)),
            "resolution": ", ".join(dict.fromkeys(f"{width}x{height}" for _, height, width in sizes)),
            "resize": self.flavour.resize,
            "network": self.flavour.network,
            **sums.weights,
            "as_in": self.flavour.as_in,
            "notes": notes,
        }

    def _notes(self, sums: FeatureSums, truth: FeatureSums, counts: Sequence[int]) -> list[str]:
        """List what a reader must know before comparing the number with another."""
        notes = []
        if min(counts) < 2:
            return [f"no distance: {counts[0]} and {counts[1]} usable videos, two of each are the least"]
        width = len(sums.blocks[0].total)
        if min(counts) <= width:
            notes.append(
                f"{min(counts)} videos for {width} features: the distance is biased upwards, by more the fewer videos; "
                f"compare it only with numbers of as many videos (more than {width} are wanted, published ones use "
                "1000 or more)"
            )
        if counts[0] != counts[1]:
            notes.append(f"unequal numbers of videos: {counts[0]} and {counts[1]}")
        if sums.failed:
            notes.append(f"{sums.failed} of {sums.rows} videos could not be read and are left out")
        if sums.frame_counts != truth.frame_counts or len(sums.frame_counts) > 1:
            notes.append("videos of different numbers of frames: distances depend on it")
        if self.precision != "float32":
            notes.append(f"features computed in {self.precision}, published ones in float32")
        if self.weights.expected is None:
            notes.append("no hash of the released weights is known: compare weights_sha256 before comparing numbers")
        return notes


@dataclass(kw_only=True)
class FeatureSums:
    """What a distance needs of a set's rows: as much memory for ten rows as for ten thousand."""

    blocks: list[FeatureMoments]
    """Usable rows in `_BLOCKS` parts, row by row in turn."""
    halves: list[FeatureMoments]
    """The same rows in two parts; empty unless asked for."""
    rows: int
    failed: int
    sizes: set[tuple[int, int, int]]
    """Frames, height, width."""
    weights: dict[str, str]

    @classmethod
    def of(cls, rows: Iterable[Row], *, halves: bool = False) -> FeatureSums:
        """Sum up rows, which are gone through once."""
        found = cls(blocks=[], halves=[], rows=0, failed=0, sizes=set(), weights={})
        for row in rows:
            found.rows += 1
            found.weights = found.weights or _weights(row)
            if row["failure"] is not None:
                found.failed += 1
                continue
            usable = found.rows - found.failed - 1
            moments = FeatureMoments.of(torch.from_numpy(unpacked(row["features"]))[None])
            found.sizes.add((row["frames"], row["height"], row["width"]))
            _add(found.blocks, usable % _BLOCKS, moments)
            if halves:
                _add(found.halves, usable % 2, moments)
        return found

    @property
    def frame_counts(self) -> set[int]:
        """Return which numbers of frames there are."""
        return {frames for frames, _, _ in self.sizes}


def total(moments: Sequence[FeatureMoments]) -> FeatureMoments:
    """Join blocks."""
    return sum(moments[1:], moments[0])


def packed(features: Features) -> str:
    """Write features as text, bit by bit."""
    return base64.b64encode(features.astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> Features:
    """Read what `packed` wrote."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)


def _add(blocks: list[FeatureMoments], number: int, moments: FeatureMoments) -> None:
    if number == len(blocks):
        blocks.append(moments)
    else:
        blocks[number] = blocks[number] + moments


def _weights(row: Row) -> dict[str, str]:
    made_with: Mapping[str, Any] = row.get("measured_with", {})
    return {key: str(made_with[key]) for key in ("weights", "weights_sha256", "precision") if key in made_with}
