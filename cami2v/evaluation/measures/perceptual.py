"""LPIPS: a perceptual distance of frames to the true ones (arXiv 1801.03924)."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torchvision
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from cami2v.checkpoints.local_weights import LocalWeights
from cami2v.evaluation.folder import GROUND_TRUTH, RequestedCameras
from cami2v.evaluation.frame_metrics import frame_error
from cami2v.evaluation.measures.base import Curve, Figure, JudgedClip, Row, UnusableVideo, VideoFailure
from cami2v.evaluation.measures.network import NetworkMeasure, repeatable, this_device
from cami2v.video import read_frames

MIN_SIZE = 64
"""Pixels, of the patches that LPIPS was made with; smaller frames vanish inside the networks."""
_BACKBONES = {
    "alex": ("alexnet", torchvision.models.AlexNet_Weights.IMAGENET1K_V1),
    "vgg": ("vgg16", torchvision.models.VGG16_Weights.IMAGENET1K_V1),
}


class PerceptualDistance(NetworkMeasure):
    """Compares videos with the true ones, frame by frame, by LPIPS v0.1 as torchmetrics has it.

    torchmetrics ships LPIPS's own weights; `weights` is torchvision's classifier below them, by default where
    torchvision keeps it. A row has failure and detail, or `distances` per frame.
    """

    name: ClassVar[str] = "lpips"
    figures: ClassVar[Sequence[Figure]] = (
        Figure(
            name="LPIPS",
            label="LPIPS",
            unit="",
            better="lower",
            meaning="perceptual distance v0.1, mean over frames 1..T-1: frame 0 is the image the model was given",
        ),
    )

    def __init__(self, *, backbone: Literal["alex", "vgg"], weights: str | Path | None, sha256: str | None) -> None:
        self.backbone = backbone
        function, released = _BACKBONES[backbone]
        self.file_name = released.url.rpartition("/")[2]
        # torchvision names its files by the start of their hash.
        expected = self.file_name.removesuffix(".pth").rpartition("-")[2]
        found = LocalWeights(
            name=self.file_name,
            path=Path(weights).expanduser() if weights is not None else _kept() / self.file_name,
            expected=sha256.lower() if sha256 is not None else expected,
            key="evaluation.measures.lpips",
            remedy=f"python -c 'import torchvision; torchvision.models.{function}(weights=\"IMAGENET1K_V1\")'",
        )
        super().__init__(weights=found, precision="float32")

    def load(self, weights: Path) -> LearnedPerceptualImagePatchSimilarity:
        """Build torchmetrics' network over a local file."""
        with _torchvision_finds(weights, self.file_name):
            return LearnedPerceptualImagePatchSimilarity(net_type=self.backbone, normalize=True)

    def describe(self) -> dict[str, Any]:
        """Return network, weights and versions. Raises ValueError for absent or unexpected weights."""
        return {
            "backbone": self.backbone,
            "lpips": "0.1",
            "torchmetrics": metadata.version("torchmetrics"),
            **super().describe(),
        }

    def judges(self, video_set: str) -> bool:
        """Leave out the truth itself."""
        return video_set != GROUND_TRUTH

    def judge(self, clip: JudgedClip) -> Row:
        """Compare a clip with its true video."""
        frames = clip.frames()
        if isinstance(frames, UnusableVideo):
            return {"failure": frames.reason.value, "detail": frames.detail}
        if not clip.true_video.exists():
            missing = f"no true {clip.true_video.name} to compare with"
            return {"failure": VideoFailure.MISSING_VIDEO.value, "detail": missing}
        truth = read_frames(clip.true_video)
        frame_error(frames, truth)  # raises where sizes differ
        if min(truth.shape[1:3]) < MIN_SIZE:
            return {"failure": "frames too small", "detail": f"{truth.shape[1:3]}, LPIPS needs {MIN_SIZE} pixels"}
        network, device = self.network, this_device()
        videos = [torch.from_numpy(each).permute(0, 3, 1, 2).to(device).float() / 255 for each in (frames, truth)]
        with repeatable():
            distances = [float(network(one[None], other[None])) for one, other in zip(*videos, strict=True)]
        return {"failure": None, "detail": "", "distances": distances}

    def values(self, row: Row) -> dict[str, float | None]:
        """Return the mean over frames."""
        return {"LPIPS": None if row["failure"] is not None else statistics.fmean(row["distances"][1:])}

    def curves(self, row: Row, cameras: RequestedCameras) -> list[Curve]:
        """Return the distance of every frame."""
        return [Curve(label="LPIPS", unit="", values=row["distances"])] if row.get("distances") else []


def _kept() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


@contextmanager
def _torchvision_finds(weights: Path, file_name: str) -> Iterator[None]:
    """Let torchvision find a file under its own name, so that it downloads nothing."""
    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        (Path(folder) / "checkpoints" / file_name).symlink_to(weights.resolve())
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)
