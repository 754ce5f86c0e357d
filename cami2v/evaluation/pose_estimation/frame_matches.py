"""Features of judged frames: weaker ones than usual, because a clip without matches has no score."""

from __future__ import annotations

import numpy as np
import pycolmap
from jaxtyping import UInt8
from PIL import Image

from cami2v.geometry import frame_matches
from cami2v.geometry.frame_matches import Features, SiftOptions

PYCOLMAP_VERSION: str = pycolmap.__version__
SMALLEST_SIDE_PIXELS = 32
"""Frames below 16 pixels make pycolmap 4.2.1 abort; up to here it finds a handful of features at best."""

_PEAK_THRESHOLD, _EDGE_THRESHOLD = 0.003, 20.0
"""Weaker and longer blobs than SIFT's own 0.0067 and 10: on the real clip with the least texture three quarters more
features, a third fewer pairs without matches; no change on others."""


def find_features(frame: UInt8[np.ndarray, "height width 3"], *, max_features: int) -> Features:
    """Extract SIFT features, on one thread."""
    options = SiftOptions(max_features=max_features, peak_threshold=_PEAK_THRESHOLD, edge_threshold=_EDGE_THRESHOLD)
    return frame_matches.find_features(np.asarray(Image.fromarray(frame).convert("L")), options)
