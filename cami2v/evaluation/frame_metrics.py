"""Errors of generated frames against the true ones. Only deterministic reconstruction makes these small: they tell
whether the right thing is seen at the right time, not whether a video looks good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import reduce
from jaxtyping import Float64, UInt8

Frames = UInt8[np.ndarray, "frames height width 3"]


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
