"""CLIP frame consistency: does a video stay about the same thing? It needs no true video, and sees no motion."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from cami2v.checkpoints.local_weights import released_weights
from cami2v.evaluation.clip_embedding import CLIPImageEmbedder, frame_consistency, load_embedder
from cami2v.evaluation.folder import RequestedCameras
from cami2v.evaluation.measures.base import Curve, Figure, JudgedClip, Row, UnusableVideo
from cami2v.evaluation.measures.network import NetworkMeasure, Precision, repeatable

_CONSECUTIVE, _FIRST = "CLIP_consecutive", "CLIP_first"
_OF = "of CLIP image embeddings, mean over frames 1..T-1. A frozen video has 1: read it with the camera errors"


class CLIPConsistency(NetworkMeasure):
    """Compares a video's frames with each other, by CLIP's image embeddings.

    The tower's sizes are those of `conf/encoders`. A row has failure and detail, or `to_previous` and `to_first` per
    frame from the second on.
    """

    name: ClassVar[str] = "clip"
    figures: ClassVar[Sequence[Figure]] = (
        Figure(
            name=_CONSECUTIVE,
            label="CLIP frame consistency",
            unit="",
            better="higher",
            meaning=f"cosine to the frame before {_OF}",
        ),
        Figure(
            name=_FIRST,
            label="CLIP similarity to first frame",
            unit="",
            better="higher",
            meaning=f"cosine to frame 0 {_OF}",
        ),
    )

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        layers: int,
        patch_size: int,
        output_width: int,
        weights: str | Path | None,
        sha256: str | None,
        precision: Precision,
    ) -> None:
        found = released_weights("openclip_vit_h_14", path=weights, sha256=sha256, key="evaluation.measures.clip")
        super().__init__(weights=found, precision=precision)
        self.tower = {
            "width": width,
            "num_heads": num_heads,
            "layers": layers,
            "patch_size": patch_size,
            "output_width": output_width,
        }

    def load(self, weights: Path) -> CLIPImageEmbedder:
        """Build the tower."""
        return load_embedder(CLIPImageEmbedder(**self.tower), weights)

    def describe(self) -> dict[str, Any]:
        """Return the tower, its weights and precision. Raises ValueError for absent or unexpected weights."""
        return {**self.tower, **super().describe()}

    def judge(self, clip: JudgedClip) -> Row:
        """Compare a clip's frames."""
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return {"failure": frames.reason.value, "detail": frames.detail}
        if len(frames) < 2:
            return {"failure": "too few frames", "detail": "1, a comparison needs two"}
        with repeatable():
            embeddings = self.network(torch.from_numpy(frames.transpose(0, 3, 1, 2).copy()))
            to_previous, to_first = frame_consistency(embeddings.cpu())
        return {"failure": None, "detail": "", "to_previous": to_previous.tolist(), "to_first": to_first.tolist()}

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the means over frames."""
        if row["failure"] is not None:
            return {_CONSECUTIVE: None, _FIRST: None}
        return {_CONSECUTIVE: statistics.fmean(row["to_previous"]), _FIRST: statistics.fmean(row["to_first"])}

    def curves(self, row: Row, cameras: RequestedCameras) -> list[Curve]:
        """Return the cosines of every frame; the first one's to itself is 1."""
        kinds = {"to_previous": "CLIP cosine to the frame before", "to_first": "CLIP cosine to the first frame"}
        return [Curve(label=label, unit="", values=[1.0, *row[key]]) for key, label in kinds.items() if row.get(key)]
