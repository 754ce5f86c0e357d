"""Points that two frames of a clip really have in common, at a size at which pixel errors can be compared."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cami2v.geometry import frame_matches
from cami2v.geometry.frame_matches import Features, SiftOptions, match_features
from cami2v.geometry.two_view import Points

Frame = UInt8[np.ndarray, "height width 3"]

LONG_SIDE = 640
"""Larger frames are scaled down to it, so that pixel errors mean the same for every set."""

_SIFT = SiftOptions(max_features=1500)
_MAX_ERROR_PIXELS = 1.5
_MIN_MATCHES = 16


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width at which frames are compared."""
    scale = min(1.0, LONG_SIDE / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def find_features(frame: Frame) -> Features:
    """Extract SIFT features of a frame at its working size."""
    height, width = working_size(*frame.shape[:2])
    grey = Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BILINEAR)
    return frame_matches.find_features(np.asarray(grey), _SIFT)


def match_pair(first: Features, second: Features) -> tuple[Points, Points]:
    """Return the points (pixels) that match and agree on some epipolar geometry, whatever the cameras; maybe none."""
    return match_features(first, second, min_matches=_MIN_MATCHES, max_error_pixels=_MAX_ERROR_PIXELS)
