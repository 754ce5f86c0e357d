"""Errors of generated frames against the true ones. Only deterministic reconstruction makes these small: they tell
whether the right thing is seen at the right time, not whether a video looks good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float32, Float64, UInt8
from torchmetrics.functional.image import structural_similarity_index_measure

Frames = UInt8[np.ndarray, "frames height width 3"]

SSIM_WINDOW = 11
"""Pixels: a Gaussian of sigma 1.5, as in the paper (Wang et al. 2004)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameErrors:
    """Image errors of every frame; pixel values are taken to [0, 1]."""

    mean_squared_error: Float64[np.ndarray, " frames"]

    @property
    def psnr_decibels(self) -> Float64[np.ndarray, " frames"]:
        """Return the peak signal-to-noise ratio of every frame; infinite for identical frames."""
        with np.errstate(divide="ignore"):
            return -10 * np.log10(self.mean_squared_error)

    def figures(self) -> dict[str, float]:
        """Return the means over frames 1..T-1: frame 0 is the conditioning image that the model was given."""
        return {"MSE": float(self.mean_squared_error[1:].mean()), "PSNR_dB": float(self.psnr_decibels[1:].mean())}


def frame_error(
    generated: UInt8[np.ndarray, "generated_frames generated_height generated_width 3"], truth: Frames
) -> FrameErrors:
    """Compare two videos frame by frame. Raises ValueError where their sizes differ or there is one frame only."""
    if generated.shape != truth.shape or len(truth) < 2:
        raise ValueError(
            f"videos of shape {generated.shape} (generated) and {truth.shape} (true), frames height width channels: "
            "both need the same size, at least two frames"
        )
    difference = (generated.astype(np.float64) - truth.astype(np.float64)) / 255
    return FrameErrors(mean_squared_error=reduce(difference**2, "frames height width channels -> frames", "mean"))


def structural_similarity(generated: Frames, truth: Frames) -> Float64[np.ndarray, " frames"]:
    """Return the SSIM of every frame, over RGB values in [0, 1]; torchmetrics' with its defaults.

    Raises ValueError for frames smaller than its window.
    """
    if min(truth.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs frames of {SSIM_WINDOW}x{SSIM_WINDOW} or more, got {truth.shape[1:3]}")
    # Frame by frame in float32: whole videos in float64 take thirty times as long, and gigabytes.
    found = [
        structural_similarity_index_measure(_pixels(one), _pixels(other), data_range=1.0)
        for one, other in zip(generated, truth, strict=True)
    ]
    return np.array([float(frame) for frame in found if isinstance(frame, torch.Tensor)])


def _pixels(frame: UInt8[np.ndarray, "height width 3"]) -> Float32[torch.Tensor, "1 3 height width"]:
    return rearrange(torch.from_numpy(frame).float() / 255, "height width rgb -> 1 rgb height width")
