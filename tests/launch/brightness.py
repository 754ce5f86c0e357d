"""A measure of nothing in particular that costs no process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from cami2v.evaluation.measures.base import Figure, JudgedClip, Measure, Row, UnusableVideo


class Brightness(Measure):
    """Says how bright a video's frames are."""

    name: ClassVar[str] = "brightness"
    figures: ClassVar[Sequence[Figure]] = (
        Figure(name="brightness", label="brightness", unit="", better="higher", meaning="mean of all pixels"),
    )

    def describe(self) -> dict[str, Any]:
        return {"of": "all pixels"}

    def judge(self, clip: JudgedClip) -> Row:
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return {"failure": frames.reason.value, "detail": frames.detail}
        return {"failure": None, "detail": "", "brightness": float(frames.mean())}

    def values(self, row: Row) -> dict[str, float | None]:
        return {"brightness": row.get("brightness")}
