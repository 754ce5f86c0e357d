"""Camera paths by a network: VGGT (arXiv 2503.11651), through its public package."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from torch import Tensor

from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    Frames,
    IntrinsicsPixels,
    PoseEstimate,
    PoseEstimator,
    Quality,
)
from cami2v.file_hash import file_sha256

PACKAGE = "vggt"
NETWORK_WIDTH = 518
PATCH_SIZE = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedQuality(Quality):
    """Of a network that estimates intrinsics too, though they are known: how well it sees those."""

    focal_ratio: float
    """Estimated over true focal length along the width, median over frames."""
    extent: float
    """Largest distance from the first camera, in the network's own unit."""

    def describe(self) -> str:
        """Return the quality in a phrase."""
        return f"focal length {self.focal_ratio:.2f} times the true one"


class VGGTPoses(PoseEstimator):
    """VGGT-1B's camera head. Needs the `vggt` package and a weights file (VGGT's own model.pt or model.safetensors).

    All frames are seen at once, 518 pixels wide, their height the nearest multiple of 14. Nothing is drawn: every
    seed gives the same path. Computes in bfloat16 on a GPU that has it, in float32 elsewhere.
    """

    def __init__(self, *, weights: str | None, device: Literal["auto", "cpu", "cuda"]) -> None:
        self.weights = weights
        self.device = device

    def prepare(self) -> None:
        """Raise ValueError where the package or the weights are not there."""
        if importlib.util.find_spec(PACKAGE) is None:
            raise ValueError(
                "evaluation/estimator=vggt: the package vggt is not installed; install it from its repository "
                "(github.com/facebookresearch/vggt), or choose evaluation/estimator=global_mapper"
            )
        if self.weights is None or not Path(self.weights).expanduser().is_file():
            raise ValueError(
                f"evaluation.estimator.weights={self.weights}: no such file; give VGGT-1B's model.pt or "
                "model.safetensors (huggingface.co/facebook/VGGT-1B)"
            )

    def describe(self) -> dict[str, str | int | float]:
        """Return the name, the weights' hash and the size the network sees; where it computes decides rounding only."""
        self.prepare()
        assert self.weights is not None
        weights = file_sha256(Path(self.weights).expanduser())
        return {"estimator": type(self).__name__, "weights_sha256": weights, "network_width": NETWORK_WIDTH}

    def estimate(self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seed: int) -> PoseEstimate:
        """Estimate one camera per frame; the seed changes nothing."""
        self.prepare()
        assert self.weights is not None
        device = torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
        if self.device == "cuda" and device.type != "cuda":
            raise ValueError("evaluation.estimator.device=cuda: PyTorch finds no GPU here; choose cpu or auto")
        path, focal = predict(_network(self.weights, device.type), network_images(frames).to(device))
        if not np.isfinite(path).all():
            return FailedEstimate(reason=FailureReason.COLLAPSED, detail="poses are not finite")
        centers = -np.einsum("tji,tj->ti", path[:, :, :3], path[:, :, 3])
        return EstimatedPath(
            world_to_camera=path,
            quality=LearnedQuality(
                focal_ratio=float(np.median(focal * frames.shape[2] / NETWORK_WIDTH / intrinsics_pixels[:, 0])),
                extent=float(np.linalg.norm(centers - centers[0], axis=1).max()),
            ),
        )

    def estimate_trials(
        self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seeds: Sequence[int]
    ) -> list[PoseEstimate]:
        """Estimate once for all seeds."""
        return [self.estimate(frames, intrinsics_pixels, 0)] * len(seeds)


def network_images(frames: Frames) -> Float32[Tensor, "frames 3 _ _"]:
    """Resize frames to the network's width, values in [0, 1]; heights above the width are cropped to its middle."""
    height, width = frames.shape[1:3]
    rows = max(round(height * NETWORK_WIDTH / width / PATCH_SIZE), 1) * PATCH_SIZE
    pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w rgb -> t rgb h w").float() / 255
    resized = torch.nn.functional.interpolate(pixels, size=(rows, NETWORK_WIDTH), mode="bicubic", antialias=True)
    top = max(rows - NETWORK_WIDTH, 0) // 2
    return resized.clamp(0, 1)[:, :, top : top + min(rows, NETWORK_WIDTH)]


def predict(network: Any, images: Float32[Tensor, "frames 3 height width"]) -> tuple[np.ndarray, np.ndarray]:
    """Return world-to-camera poses (frames, 3, 4) and focal lengths along the width in the network's pixels."""
    decode = importlib.import_module(f"{PACKAGE}.utils.pose_enc").pose_encoding_to_extri_intri
    bfloat16 = images.is_cuda and torch.cuda.is_bf16_supported()
    with torch.no_grad():
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            tokens, _ = network.aggregator(images[None])
        encoding = network.camera_head([level.float() for level in tokens])[-1]
        extrinsic, intrinsic = decode(encoding, images.shape[-2:])
    return extrinsic[0].double().cpu().numpy(), intrinsic[0, :, 0, 0].double().cpu().numpy()


@functools.cache
def _network(weights: str, device: str) -> Any:
    """Build the network once per process."""
    path = Path(weights).expanduser()
    network = importlib.import_module(f"{PACKAGE}.models.vggt").VGGT()
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    return network.to(device).eval().requires_grad_(False)
