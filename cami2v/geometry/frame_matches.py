"""Points that two frames have in common, found without any camera: SIFT, mutual nearest neighbours, RANSAC."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Float32, UInt8

from cami2v.geometry.two_view import Points

_FATAL = 3  # glog level: COLMAP reports what is a result here as an error
_RATIO = 0.8  # Lowe 2004, on angles between unit descriptors


@dataclass(frozen=True, slots=True)
class Features:
    """Key points (pixels) and unit descriptors of a frame."""

    points: Points
    descriptors: Float32[np.ndarray, "matches 128"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiftOptions:
    """What counts as a feature; the thresholds are SIFT's own unless others are given."""

    max_features: int
    peak_threshold: float = 0.02 / 3
    edge_threshold: float = 10.0


def find_features(grey: UInt8[np.ndarray, "height width"], options: SiftOptions) -> Features:
    """Extract SIFT features, on one thread."""
    keypoints, found = _extractor(options).extract(pycolmap.Bitmap.from_array(grey))
    points = np.array([[keypoint.x, keypoint.y] for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)
    descriptors = np.asarray(found.data, dtype=np.float32).reshape(-1, 128)
    norms = np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    return Features(points=points, descriptors=descriptors / norms)


def match_features(
    first: Features, second: Features, *, min_matches: int, max_error_pixels: float
) -> tuple[Points, Points]:
    """Return the points (pixels) that match and agree on some epipolar geometry, whatever the cameras.

    None where fewer than `min_matches` do. The fundamental matrix knows no intrinsics and no poses: what it keeps
    cannot favour the cameras under test.
    """
    none = np.zeros((0, 2)), np.zeros((0, 2))
    if min(len(first.points), len(second.points)) < min_matches:
        return none
    similarity = first.descriptors @ second.descriptors.T
    forward, backward = similarity.argmax(1), similarity.argmax(0)
    mutual = np.flatnonzero(backward[forward] == np.arange(len(forward)))
    best, runner_up = (
        np.arccos(np.clip(np.partition(similarity[mutual], -nth, axis=1)[:, -nth], -1, 1)) for nth in (1, 2)
    )
    kept = mutual[best < _RATIO * runner_up]
    if len(kept) < min_matches:
        return none
    points, partners = first.points[kept], second.points[forward[kept]]
    options = pycolmap.RANSACOptions()
    options.max_error, options.random_seed, options.num_threads = max_error_pixels, 0, 1
    estimate = pycolmap.estimate_fundamental_matrix(points, partners, options)
    if estimate is None or estimate["inlier_mask"].sum() < min_matches:
        return none
    return points[estimate["inlier_mask"]], partners[estimate["inlier_mask"]]


@functools.cache
def _extractor(chosen: SiftOptions) -> pycolmap.FeatureExtractor:
    pycolmap.logging.minloglevel = _FATAL
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = 1, False
    options.sift.max_num_features = chosen.max_features
    options.sift.peak_threshold, options.sift.edge_threshold = chosen.peak_threshold, chosen.edge_threshold
    return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
