"""The Frechet video distance as a measure: a row holds a clip's features, the distance is taken between whole sets."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
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

    def distances(self, rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
        """Return every set's distance to the true videos; for these themselves, that of their two halves."""
        truth = blocks(rows.get(GROUND_TRUTH, ()), _BLOCKS)
        found = {}
        for video_set, own in rows.items():
            if video_set == GROUND_TRUTH:
                found[video_set] = self._distance(blocks(own, 2, part=0), blocks(own, 2, part=1), own, own, halves=True)
            else:
                found[video_set] = self._distance(blocks(own, _BLOCKS), truth, own, rows.get(GROUND_TRUTH, ()))
        return found

    def _distance(
        self,
        own: Sequence[FeatureMoments],
        true: Sequence[FeatureMoments],
        rows: Sequence[Row],
        true_rows: Sequence[Row],
        *,
        halves: bool = False,
    ) -> dict[str, Any]:
        counts = [sum(each.count for each in moments) for moments in (own, true)]
        notes = self._notes(rows, true_rows, counts, own)
        value = extrapolated = None
        if min(counts) >= 2:
            value = float(frechet_distance(total(own), total(true)))
            if self.extrapolate and not halves:
                extrapolated = extrapolated_distance(own, true)
        sizes = sorted({(row["frames"], row["height"], row["width"]) for row in rows if row["failure"] is None})
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
            **_weights(rows),
            "as_in": self.flavour.as_in,
            "notes": notes,
        }

    def _notes(
        self, rows: Sequence[Row], true_rows: Sequence[Row], counts: Sequence[int], own: Sequence[FeatureMoments]
    ) -> list[str]:
        """List what a reader must know before comparing the number with another."""
        notes = []
        if min(counts) < 2:
            return [f"no distance: {counts[0]} and {counts[1]} usable videos, two of each are the least"]
        width = len(own[0].total)
        if min(counts) <= width:
            notes.append(
                f"{min(counts)} videos for {width} features: the distance is biased upwards, by more the fewer videos; "
                f"compare it only with numbers of as many videos (more than {width} are wanted, published ones use "
                "1000 or more)"
            )
        if counts[0] != counts[1]:
            notes.append(f"unequal numbers of videos: {counts[0]} and {counts[1]}")
        failed = sum(row["failure"] is not None for row in rows)
        if failed:
            notes.append(f"{failed} of {len(rows)} videos could not be read and are left out")
        if _frame_counts(rows) != _frame_counts(true_rows) or len(_frame_counts(rows)) > 1:
            notes.append("videos of different numbers of frames: distances depend on it")
        if self.precision != "float32":
            notes.append(f"features computed in {self.precision}, published ones in float32")
        if self.weights.expected is None:
            notes.append("no hash of the released weights is known: compare weights_sha256 before comparing numbers")
        return notes


def packed(features: Features) -> str:
    """Write features as text, bit by bit."""
    return base64.b64encode(features.astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> Features:
    """Read what `packed` wrote."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)


def blocks(rows: Sequence[Row], count: int, *, part: int | None = None) -> list[FeatureMoments]:
    """Sum up rows' features in `count` blocks, row by row in turn; `part` keeps one block only. Rows are read once."""
    kept = range(count) if part is None else (part,)
    summed: dict[int, FeatureMoments] = {}
    for number, features in enumerate(_usable(rows)):
        block = number % count
        if block in kept:
            moments = FeatureMoments.of(torch.from_numpy(features)[None])
            summed[block] = summed[block] + moments if block in summed else moments
    return [summed[block] for block in sorted(summed)]


def total(moments: Sequence[FeatureMoments]) -> FeatureMoments:
    """Join blocks."""
    return sum(moments[1:], moments[0])


def _usable(rows: Sequence[Row]) -> Iterator[Features]:
    return (unpacked(row["features"]) for row in rows if row["failure"] is None)


def _frame_counts(rows: Sequence[Row]) -> set[int]:
    return {row["frames"] for row in rows if row["failure"] is None}


def _weights(rows: Sequence[Row]) -> dict[str, str]:
    made_with: Mapping[str, Any] = next((row["measured_with"] for row in rows if "measured_with" in row), {})
    return {key: str(made_with[key]) for key in ("weights", "weights_sha256", "precision") if key in made_with}
