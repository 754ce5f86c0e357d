"""Seeded, band-limited noise that every procedural texture is made of."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from jaxtyping import Float32
from PIL import Image

FINEST_CELL_TEXELS = 3.0
"""No octave is finer: bilinear lookups of anything sharper shimmer from frame to frame."""


def generator(*words: str | int) -> np.random.Generator:
    """Return the random generator named by `words`; the same words give the same draws in every process."""
    digest = hashlib.sha256("/".join(str(word) for word in words).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def value_noise(
    rng: np.random.Generator, height: int, width: int, cell: float, stretch: float = 1.0
) -> Float32[np.ndarray, "height width"]:
    """Interpolate a random grid with cells of `cell` rows and `cell * stretch` columns; about unit variance."""
    rows, columns = math.ceil(height / cell) + 3, math.ceil(width / (cell * stretch)) + 3
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    box = (1.0, 1.0, 1.0 + width / (cell * stretch), 1.0 + height / cell)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=box)) * 1.25


def fractal_noise(
    rng: np.random.Generator, height: int, width: int, coarsest: float, gain: float = 0.7, stretch: float = 1.0
) -> Float32[np.ndarray, "height width"]:
    """Sum octaves of value noise from cells of `coarsest` texels down to the finest allowed; about unit variance."""
    total = np.zeros((height, width), np.float32)
    cell, weight, variance = max(coarsest, FINEST_CELL_TEXELS), 1.0, 0.0
    while cell >= FINEST_CELL_TEXELS:
        total += np.float32(weight) * value_noise(rng, height, width, cell, stretch)
        variance += weight**2
        cell, weight = cell / 2, weight * gain
    return total / np.float32(math.sqrt(variance))


def soft_step(values: Float32[np.ndarray, "*shape"], softness: float = 1.0) -> Float32[np.ndarray, "*shape"]:
    """Return 0 below zero and 1 above, ramping over `softness` to either side so that edges stay band-limited."""
    ramp = np.clip(values / np.float32(2 * softness) + np.float32(0.5), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)
