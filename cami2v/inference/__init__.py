"""Images to videos: `from cami2v.inference import Pipeline` (docs/pipeline.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cami2v.inference.pipeline import Pipeline

__all__ = ["Pipeline"]


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: the captioner, in the same package, needs no model.
    if name == "Pipeline":
        from cami2v.inference.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
