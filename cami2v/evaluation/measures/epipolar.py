"""Camera errors without reconstruction: matches in a video against the epipolar lines of the requested cameras."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from cami2v.evaluation.epipolar_error import Matches, PairError, moves, pair_errors, pairs_to_match
from cami2v.evaluation.measures.base import Figure, Frames, JudgedClip, Measure, Row, ShownMatches, UnusableVideo
from cami2v.evaluation.pose_estimation.frame_matches import (
    PYCOLMAP_VERSION,
    SMALLEST_SIDE_PIXELS,
    find_features,
)
from cami2v.geometry.frame_matches import match_features

_PAIRS = "mean over pairs of frames 1/16, 1/8 and 1/4 of the clip apart; a pair that does not match counts as worst"

_SHOWN = 10


class PairFailure(StrEnum):
    """Why a clip's score is a penalty, in whole or in part."""

    TOO_SMALL = "too small"
    TOO_FEW_MATCHES = "too few matches"
    """In more than half of the pairs, each of which counts as worst."""
    STANDS_STILL = "stands still"
    """The requested camera moves, nothing in the video does: every pair counts as worst."""
    CRASHED = "crashed"


class EpipolarErrors(Measure):
    """Scores every readable clip; needs no reconstruction, no trials and no unit of length.

    A row has `failure` (a reason or null), `detail`, `max_error_pixels` and `pairs` (null where there is no video to
    look at, else a `PairError` each), and `shown`: a few matches of the pair furthest apart that has some, or null.
    """

    name: ClassVar[str] = "epipolar"
    isolated: ClassVar[bool] = True
    figures: ClassVar[Sequence[Figure]] = (
        Figure(
            name="EpiErr_px",
            label="epipolar error",
            unit="pixels",
            better="lower",
            meaning=f"median distance of a pair's matches to where the requested cameras allow them; {_PAIRS}",
        ),
        Figure(
            name="EpiOff_share",
            label="off lines",
            unit="",
            better="lower",
            meaning=f"share of a pair's matches further off than evaluation.measures.epipolar.off_pixels; {_PAIRS}",
        ),
    )

    def __init__(
        self,
        *,
        off_pixels: float,
        max_error_to_diagonal: float,
        min_matches: int,
        max_features: int,
        ransac_pixels: float,
        still_pixels: float,
    ) -> None:
        for key, value in (("off_pixels", off_pixels), ("max_error_to_diagonal", max_error_to_diagonal)):
            if value <= 0:
                raise ValueError(f"evaluation.measures.epipolar.{key}={value}: must be above 0")
        if min_matches < 8:
            raise ValueError(
                f"evaluation.measures.epipolar.min_matches={min_matches}: must be at least 8, what a fundamental "
                "matrix takes"
            )
        self.off_pixels = off_pixels
        self.max_error_to_diagonal = max_error_to_diagonal
        self.min_matches = min_matches
        self.max_features = max_features
        self.ransac_pixels = ransac_pixels
        self.still_pixels = still_pixels

    def describe(self) -> dict[str, Any]:
        """Return the settings and pycolmap's version."""
        return {"pycolmap": PYCOLMAP_VERSION, **vars(self)}

    def judge(self, clip: JudgedClip) -> Row:
        """Match pairs of frames and measure them under the requested cameras."""
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return self._row(clip, frames.reason.value, frames.detail, None)
        if min(frames.shape[1:3]) < SMALLEST_SIDE_PIXELS:
            detail = f"the smaller side must have {SMALLEST_SIDE_PIXELS} pixels at least"
            return self._row(clip, PairFailure.TOO_SMALL.value, detail, None)
        matches = self.match_video(frames)
        return {**self.judge_matches(clip, matches), "shown": _shown(matches, clip)}

    def match_video(self, frames: Frames) -> Matches:
        """Match the pairs of frames that are measured, without looking at any camera."""
        features = [find_features(frame, max_features=self.max_features) for frame in frames]
        return {
            (first, second): match_features(
                features[first], features[second], min_matches=self.min_matches, max_error_pixels=self.ransac_pixels
            )
            for first, second in pairs_to_match(len(frames))
        }

    def judge_matches(self, clip: JudgedClip, matches: Matches) -> Row:
        """Measure a clip's matches under its requested cameras."""
        pairs = pair_errors(
            matches,
            clip.cameras.world_to_camera,
            clip.cameras.intrinsics_pixels,
            off_pixels=self.off_pixels,
            max_error_pixels=self._max_error(clip),
        )
        matched = [pair for pair in pairs if pair.matches]
        if 2 * len(matched) < len(pairs):
            detail = f"{len(pairs) - len(matched)} of {len(pairs)} pairs have less than {self.min_matches} matches"
            return self._row(clip, PairFailure.TOO_FEW_MATCHES.value, detail, pairs)
        most = max((pair.displacement_pixels for pair in matched), default=0.0)
        if most < self.still_pixels and moves(clip.cameras.world_to_camera):
            detail = f"matches move by {most:.2g} pixels at most, the requested camera moves"
            return self._row(clip, PairFailure.STANDS_STILL.value, detail, pairs)
        return self._row(clip, None, "", pairs)

    def crashed(self, clip: JudgedClip) -> Row:
        """Return a failed row."""
        return self._row(clip, PairFailure.CRASHED.value, "the process that matched the frames died", None)

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the clip's figures; None only where there was no video to look at."""
        if row["pairs"] is None:
            return dict.fromkeys(figure.name for figure in self.figures)
        if row["failure"] == PairFailure.STANDS_STILL:
            return dict(self.penalties(row))
        error = statistics.fmean(pair["median_pixels"] for pair in row["pairs"])
        off = statistics.fmean(pair["off_share"] for pair in row["pairs"])
        return {"EpiErr_px": error, "EpiOff_share": off}

    def penalties(self, row: Row) -> dict[str, float]:
        """Return the worst score there is."""
        return {"EpiErr_px": row["max_error_pixels"], "EpiOff_share": 1.0}

    def matches(self, row: Row) -> ShownMatches | None:
        """Return a few matches of the pair furthest apart that has some."""
        if not (shown := row.get("shown")):
            return None
        first, second = shown["frames"]
        return ShownMatches(frames=(first, second), points=shown["points"], partners=shown["partners"])

    def facts(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the numbers of pairs, and of clips by the reason of their penalty."""
        pairs = [pair for row in rows if row["pairs"] is not None for pair in row["pairs"]]
        reasons = [row["failure"] for row in rows if row["failure"] is not None]
        return {
            "pairs": len(pairs),
            "unmatched_pairs": sum(pair["matches"] == 0 for pair in pairs),
            "penalised_clips": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        }

    def _max_error(self, clip: JudgedClip) -> float:
        return self.max_error_to_diagonal * math.hypot(clip.cameras.height, clip.cameras.width)

    def _row(self, clip: JudgedClip, failure: str | None, detail: str, pairs: Sequence[PairError] | None) -> Row:
        return {
            "failure": failure,
            "detail": detail,
            "max_error_pixels": self._max_error(clip),
            "pairs": None if pairs is None else [asdict(pair) for pair in pairs],
        }


def _shown(matches: Matches, clip: JudgedClip) -> dict[str, Any] | None:
    found = {pair: points for pair, points in matches.items() if len(points[0])}
    if not found:
        return None
    first, second = max(found, key=lambda pair: (pair[1] - pair[0], -pair[0]))
    size = np.array([clip.cameras.width, clip.cameras.height], dtype=np.float64)
    points, partners = (each / size for each in found[first, second])
    chosen = _spread(points)
    return {
        "frames": [first, second],
        "points": points[chosen].round(5).tolist(),
        "partners": partners[chosen].round(5).tolist(),
    }


def _spread(points: Float64[np.ndarray, "points 2"]) -> list[int]:
    """Choose points far from each other, greedily."""
    chosen = [int(np.linalg.norm(points - 0.5, axis=1).argmin())]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < min(_SHOWN, len(points)):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return chosen
