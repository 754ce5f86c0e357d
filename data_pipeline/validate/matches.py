"""Points that two frames really have in common, found without any camera: SIFT, mutual nearest neighbours, RANSAC."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

Frame = UInt8[np.ndarray, "height width 3"]
Points = Float64[np.ndarray, "points 2"]

LONG_SIDE = 640
"""Larger frames are scaled down to it, so that pixel errors mean the same for every set."""

_MAX_FEATURES = 1500
_RATIO = 0.8  # Lowe 2004, on angles between unit descriptors
_MAX_ERROR_PIXELS = 1.5
_MIN_MATCHES = 16


@dataclass(frozen=True, slots=True)
class Features:
    """Key points (pixels) and unit descriptors of a frame."""

    points: Points
    descriptors: Float32[np.ndarray, "points 128"]


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width at which frames are compared."""
    scale = min(1.0, LONG_SIDE / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def find_features(frame: Frame) -> Features:
    """Extract SIFT features of a frame at its working size."""
    height, width = working_size(*frame.shape[:2])
    grey = Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BILINEAR)
    keypoints, found = _extractor().extract(pycolmap.Bitmap.from_array(np.asarray(grey)))
    points = np.array([[keypoint.x, keypoint.y] for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)
    descriptors = np.asarray(found.data, dtype=np.float32).reshape(-1, 128)
    return Features(
        points=points,
        descriptors=descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9),
    )


def match_pair(first: Features, second: Features) -> tuple[Points, Points]:
    """Return the points (pixels) that match and agree on some epipolar geometry, whatever the cameras; maybe none."""
    none = np.zeros((0, 2)), np.zeros((0, 2))
    if min(len(first.points), len(second.points)) < _MIN_MATCHES:
        return none
    similarity = first.descriptors @ second.descriptors.T
    forward, backward = similarity.argmax(1), similarity.argmax(0)
    best, runner_up = (np.arccos(np.clip(np.partition(similarity, -k, axis=1)[:, -k], -1, 1)) for k in (1, 2))
    kept = np.flatnonzero((backward[forward] == np.arange(len(forward))) & (best < _RATIO * runner_up))
    if len(kept) < _MIN_MATCHES:
        return none
    points, partners = first.points[kept], second.points[forward[kept]]
    options = pycolmap.RANSACOptions()
    options.max_error, options.random_seed = _MAX_ERROR_PIXELS, 0
    # The fundamental matrix knows no intrinsics: what it keeps cannot favour the cameras under test.
    estimate = pycolmap.estimate_fundamental_matrix(points, partners, options)
    if estimate is None or estimate["inlier_mask"].sum() < _MIN_MATCHES:
        return none
    return points[estimate["inlier_mask"]], partners[estimate["inlier_mask"]]


@functools.cache
def _extractor() -> pycolmap.FeatureExtractor:
    pycolmap.logging.minloglevel = 3  # glog: fatal only
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = 1, False
    options.sift.max_num_features = _MAX_FEATURES
    return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
