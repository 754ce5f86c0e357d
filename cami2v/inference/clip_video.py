"""Model tensors to frames one can look at, alone or side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

LEGIBLE_PIXELS = 192
"""Below this height neither a frame nor a plot beside it can be read."""

Frames = UInt8[np.ndarray, "frames height _width 3"]


def to_frames(video: Float[Tensor, "3 frames height width"]) -> UInt8[np.ndarray, "frames height width 3"]:
    """Convert a video in [-1, 1] to 8-bit RGB frames."""
    levels = (video.float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


def enlarged(video: Frames, at_least: int = LEGIBLE_PIXELS) -> UInt8[np.ndarray, "frames _height _width 3"]:
    """Repeat pixels a whole number of times, so that a small model's frames are `at_least` so many pixels high."""
    factor = -(-at_least // video.shape[1])
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def side_by_side(panels: Sequence[Frames], *, gap: int = 4) -> UInt8[np.ndarray, "frames height _joined 3"]:
    """Place videos of equal length and height next to each other, with a white gap."""
    frames, height = panels[0].shape[:2]
    white = np.full((frames, height, gap, 3), 255, np.uint8)
    row: list[np.ndarray] = []
    for panel in panels:
        row += [panel, white] if len(row) < 2 * len(panels) - 2 else [panel]
    return np.concatenate(row, axis=2)
