"""Scores that VBench gave (arXiv 2311.17982): read from its result files, since it cannot be installed beside us.

vbench 0.1.5 pins numpy below 2 and transformers 4.33; it runs in an environment of its own, over the same videos.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from cami2v.evaluation.measures.base import Figure, JudgedClip, Measure, Row
from cami2v.file_hash import file_sha256

DIMENSIONS = {
    "subject_consistency": "DINO cosine of every frame to the frame before and to the first",
    "background_consistency": "CLIP cosine of every frame to the frame before and to the first",
    "motion_smoothness": "error of a frame interpolator at every other frame",
    "dynamic_degree": "1 where optical flow finds large motion, else 0",
    "aesthetic_quality": "LAION's aesthetic predictor",
    "imaging_quality": "MUSIQ, in [0, 100] per video; VBench prints a hundredth of it",
}
"""What VBench offers for videos of one's own (--mode=custom_input); none needs a prompt."""
_SUFFIX = "_eval_results.json"


class VBenchScores(Measure):
    """Takes a video's scores from `<results>/<video set>/*_eval_results.json`, as `vbench evaluate` leaves them.

    A row has failure and detail, or `scores` by dimension. Only for the sets that VBench has judged.
    """

    name: ClassVar[str] = "vbench"
    figures: ClassVar[Sequence[Figure]] = tuple(
        Figure(
            name=f"VBench_{dimension}",
            label=f"VBench {dimension.replace('_', ' ')}",
            unit="",
            better="higher",
            meaning=meaning,
        )
        for dimension, meaning in DIMENSIONS.items()
    )

    def __init__(self, *, results: str | Path) -> None:
        self.results = Path(results).expanduser()

    def prepare(self) -> None:
        """Raise ValueError where there are no results."""
        self.describe()

    def describe(self) -> dict[str, Any]:
        """Return the hashes of the result files. Raises ValueError where there are none."""
        files = sorted(self.results.glob(f"*/*{_SUFFIX}"))
        if not files:
            raise ValueError(
                f"evaluation.measures.vbench.results={self.results}: no <video set>/*{_SUFFIX}; run vbench evaluate "
                "over videos/<video set> with --output_path there (docs/video-quality.md)"
            )
        return {"results": {str(path.relative_to(self.results)): file_sha256(path) for path in files}}

    def judges(self, video_set: str) -> bool:
        """Judge the sets that have results."""
        return any((self.results / video_set).glob(f"*{_SUFFIX}"))

    def judge(self, clip: JudgedClip) -> Row:
        """Look a clip up."""
        scores = read_scores(self.results / clip.video_set).get(clip.video.name)
        if scores is None:
            return {"failure": "not judged by VBench", "detail": f"{clip.video.name} is in no result file"}
        return {"failure": None, "detail": "", "scores": scores}

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the scores; None for a dimension that was not measured."""
        scores = row.get("scores", {})
        return {f"VBench_{dimension}": scores.get(dimension) for dimension in DIMENSIONS}


@cache
def read_scores(folder: Path) -> dict[str, dict[str, float]]:
    """Read what VBench says of every video, by file name and dimension.

    Raises ValueError for a file of another kind, and for two that say different things of one video.
    """
    scores: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        for dimension, video, score in _entries(path):
            own = scores.setdefault(video, {})
            if own.setdefault(dimension, score) != score:
                raise ValueError(f"{path}: another {dimension} of {video} than in a file before; keep one of them")
    return scores


def _entries(path: Path) -> list[tuple[str, str, float]]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return [
            (dimension, Path(each["video_path"]).name, float(each["video_results"]))
            for dimension, (_, videos) in held.items()
            if dimension in DIMENSIONS
            for each in videos
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a result file of VBench ({type(error).__name__}: {error})") from error
