"""Furniture made of boxes, in the piece's own frame: back against +z, front facing -z, heights above the floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from data_pipeline.synthetic.materials import Colour, hsv

COLOUR_NAMES = {
    0.04: "red",
    0.11: "orange",
    0.19: "yellow",
    0.43: "green",
    0.53: "teal",
    0.68: "blue",
    0.82: "purple",
    0.94: "pink",
    1.0: "red",
}
"""By the highest hue in turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One box of a piece; metres."""

    x: float
    z: float
    bottom: float
    width: float
    depth: float
    height: float
    material: str
    colour: Float32[np.ndarray, "3"]
    front: str
    """Material of the face towards -z."""
    yaw: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One piece of furniture with its footprint and the words a caption uses for it."""

    noun: str
    width: float
    depth: float
    parts: tuple[Part, ...]


def with_article(noun: str) -> str:
    """Return the noun after `a` or `an`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _part(
    x: float,
    z: float,
    bottom: float,
    size: tuple[float, float, float],
    material: str,
    colour: Colour,
    *,
    front: str = "",
    yaw: float = 0.0,
) -> Part:
    width, depth, height = size
    return Part(
        x=x, z=z, bottom=bottom, width=width, depth=depth, height=height,
        material=material, colour=colour, front=front or material, yaw=yaw,
    )  # fmt: skip


def _cloth(rng: np.random.Generator) -> tuple[str, Colour]:
    hue = rng.random()
    name = next(name for limit, name in COLOUR_NAMES.items() if hue < limit)
    return name, hsv(hue, rng.uniform(0.45, 0.75), rng.uniform(0.45, 0.8))


def _timber(rng: np.random.Generator) -> Colour:
    return hsv(rng.uniform(0.04, 0.11), rng.uniform(0.3, 0.65), rng.uniform(0.4, 0.8))


def sofa(rng: np.random.Generator) -> Piece:
    """Make a sofa with arms and loose cushions."""
    name, colour = _cloth(rng)
    width = rng.uniform(1.7, 2.3)
    parts = [
        _part(0.0, -0.05, 0.08, (width, 0.8, 0.34), "fabric", colour),
        _part(0.0, 0.35, 0.08, (width, 0.2, 0.76), "fabric", colour * 0.9),
        _part(-width / 2 + 0.1, -0.05, 0.08, (0.2, 0.82, 0.54), "fabric", colour * 0.95),
        _part(width / 2 - 0.1, -0.05, 0.08, (0.2, 0.82, 0.54), "fabric", colour * 0.95),
    ]
    for side in (-1, 1):
        cushion = _part(
            side * width * 0.24,
            0.17,
            0.42,
            (0.42, 0.14, 0.36),
            "carpet",
            _cloth(rng)[1],
            yaw=side * rng.uniform(0, 0.3),
        )
        parts.append(cushion)
    return Piece(noun=f"{name} sofa", width=width, depth=0.9, parts=tuple(parts))


def armchair(rng: np.random.Generator) -> Piece:
    """Make an armchair."""
    name, colour = _cloth(rng)
    parts = (
        _part(0.0, -0.05, 0.06, (0.8, 0.72, 0.36), "fabric", colour),
        _part(0.0, 0.32, 0.06, (0.8, 0.16, 0.84), "fabric", colour * 0.9),
        _part(-0.34, -0.05, 0.06, (0.14, 0.72, 0.54), "fabric", colour * 0.95),
        _part(0.34, -0.05, 0.06, (0.14, 0.72, 0.54), "fabric", colour * 0.95),
    )
    return Piece(noun=f"{name} armchair", width=0.82, depth=0.82, parts=parts)


def bed(rng: np.random.Generator) -> Piece:
    """Make a bed with a headboard, a blanket and two pillows."""
    name, colour = _cloth(rng)
    width, timber = rng.uniform(1.4, 1.8), _timber(rng)
    parts = (
        _part(0.0, 0.0, 0.05, (width, 2.0, 0.25), "wood", timber),
        _part(0.0, -0.02, 0.30, (width - 0.06, 1.94, 0.22), "fabric", hsv(0.12, 0.06, 0.9)),
        _part(0.0, -0.3, 0.34, (width + 0.02, 1.36, 0.21), "carpet", colour),
        _part(0.0, 0.98, 0.05, (width + 0.1, 0.08, 1.05), "wood", timber * 0.85),
        _part(-width / 4, 0.7, 0.52, (0.6, 0.4, 0.14), "fabric", hsv(rng.random(), 0.15, 0.92)),
        _part(width / 4, 0.7, 0.52, (0.6, 0.4, 0.14), "fabric", hsv(rng.random(), 0.15, 0.92)),
    )
    return Piece(noun=f"bed with {with_article(name)} blanket", width=width + 0.1, depth=2.05, parts=parts)


def wardrobe(rng: np.random.Generator) -> Piece:
    """Make a wardrobe."""
    width = rng.uniform(0.9, 1.4)
    part = _part(0.0, 0.0, 0.0, (width, 0.55, rng.uniform(1.8, 2.1)), "wood", _timber(rng), front="drawers")
    return Piece(noun="wooden wardrobe", width=width, depth=0.55, parts=(part,))


def bookshelf(rng: np.random.Generator) -> Piece:
    """Make a full bookcase."""
    width = rng.uniform(0.8, 1.5)
    part = _part(0.0, 0.0, 0.0, (width, 0.32, rng.uniform(1.4, 2.1)), "wood", _timber(rng), front="books")
    return Piece(noun="bookshelf", width=width, depth=0.32, parts=(part,))


def dresser(rng: np.random.Generator) -> Piece:
    """Make a chest of drawers with a box and a vase on it."""
    width, height = rng.uniform(0.9, 1.4), rng.uniform(0.75, 0.95)
    name, colour = _cloth(rng)
    parts = (
        _part(0.0, 0.0, 0.0, (width, 0.46, height), "wood", _timber(rng), front="drawers"),
        _part(-width * 0.25, 0.02, height, (0.18, 0.18, 0.3), "carpet", colour, yaw=rng.uniform(-0.6, 0.6)),
        _part(width * 0.22, 0.0, height, (0.3, 0.2, 0.14), "fabric", _cloth(rng)[1], yaw=rng.uniform(-0.5, 0.5)),
    )
    return Piece(noun=f"dresser with {with_article(name)} vase", width=width, depth=0.46, parts=parts)


def television(rng: np.random.Generator) -> Piece:
    """Make a low stand with a television showing a picture."""
    width, timber = rng.uniform(1.3, 1.7), _timber(rng)
    parts = (
        _part(0.0, 0.0, 0.0, (width, 0.42, 0.45), "wood", timber, front="drawers"),
        _part(0.0, 0.05, 0.5, (1.1, 0.06, 0.66), "plain", hsv(0.0, 0.0, 0.12), front="landscape"),
        _part(0.0, 0.05, 0.45, (0.3, 0.2, 0.05), "plain", hsv(0.0, 0.0, 0.15)),
    )
    return Piece(noun="television", width=width, depth=0.42, parts=parts)


def kitchen_counter(rng: np.random.Generator) -> Piece:
    """Make a counter with a tiled top, a stove and a few boxes on it."""
    width, (name, colour) = rng.uniform(1.8, 2.6), _cloth(rng)
    parts = (
        _part(0.0, 0.0, 0.0, (width, 0.6, 0.86), "wood", colour, front="drawers"),
        _part(0.0, -0.01, 0.86, (width + 0.04, 0.64, 0.05), "tiles", hsv(0.1, 0.08, 0.85)),
        _part(width * 0.3, 0.08, 0.91, (0.4, 0.32, 0.3), "plain", hsv(0.0, 0.0, 0.25), front="discs"),
        _part(-width * 0.3, 0.1, 0.91, (0.16, 0.16, 0.32), "fabric", _cloth(rng)[1], yaw=0.4),
        _part(-width * 0.12, 0.1, 0.91, (0.24, 0.18, 0.2), "carpet", _cloth(rng)[1], yaw=-0.2),
    )
    return Piece(noun=f"{name} kitchen counter", width=width + 0.04, depth=0.66, parts=parts)


def desk(rng: np.random.Generator) -> Piece:
    """Make a desk with drawers, a monitor and a stack of books."""
    width, timber = rng.uniform(1.2, 1.6), _timber(rng)
    parts = (
        _part(0.0, 0.0, 0.7, (width, 0.65, 0.05), "wood", timber),
        _part(-width / 2 + 0.22, 0.0, 0.0, (0.42, 0.6, 0.7), "wood", timber * 0.9, front="drawers"),
        _part(width / 2 - 0.04, 0.0, 0.0, (0.06, 0.6, 0.7), "wood", timber * 0.9),
        _part(0.05, 0.18, 0.84, (0.62, 0.05, 0.38), "plain", hsv(0.0, 0.0, 0.15), front="mondrian"),
        _part(0.05, 0.2, 0.75, (0.08, 0.08, 0.1), "plain", hsv(0.0, 0.0, 0.2)),
        _part(-width * 0.32, 0.1, 0.75, (0.26, 0.2, 0.16), "books", timber, yaw=0.2),
    )
    return Piece(noun="desk with a monitor", width=width, depth=0.68, parts=parts)


def table(rng: np.random.Generator) -> Piece:
    """Make a table on four legs, with things on it."""
    width, depth, height = rng.uniform(0.9, 1.5), rng.uniform(0.6, 0.85), (0.42, 0.74)[rng.integers(2)]
    timber = _timber(rng)
    parts = [_part(0.0, 0.0, height - 0.05, (width, depth, 0.05), "wood", timber)]
    for x in (-1, 1):
        for z in (-1, 1):
            leg = _part(
                x * (width / 2 - 0.06), z * (depth / 2 - 0.06), 0.0, (0.07, 0.07, height - 0.05), "wood", timber * 0.85
            )
            parts.append(leg)
    parts.append(
        _part(rng.uniform(-0.2, 0.2), 0.05, height, (0.2, 0.2, 0.24), "floral_wallpaper", _cloth(rng)[1], yaw=0.5)
    )
    parts.append(_part(-width * 0.3, -0.1, height, (0.24, 0.17, 0.06), "fabric", _cloth(rng)[1], yaw=-0.4))
    return Piece(noun="wooden table", width=width, depth=depth, parts=tuple(parts))


def plant(rng: np.random.Generator) -> Piece:
    """Make a potted plant of twisted leafy blocks."""
    green, parts = hsv(rng.uniform(0.24, 0.38), 0.6, 0.5), []
    parts.append(_part(0.0, 0.0, 0.0, (0.32, 0.32, 0.34), "brick", hsv(0.04, 0.6, 0.65), yaw=0.3))
    for level, (side, height) in enumerate(((0.28, 0.3), (0.46, 0.28), (0.36, 0.26), (0.22, 0.2))):
        bottom = 0.34 + sum((0.3, 0.28, 0.26)[:level])
        parts.append(
            _part(
                0.0, 0.0, bottom, (side, side, height), "foliage", green * rng.uniform(0.8, 1.3), yaw=0.5 * level + 0.2
            )
        )
    return Piece(noun="potted plant", width=0.46, depth=0.46, parts=tuple(parts))


def lamp(rng: np.random.Generator) -> Piece:
    """Make a floor lamp."""
    name, colour = _cloth(rng)
    parts = (
        _part(0.0, 0.0, 0.0, (0.3, 0.3, 0.04), "plain", hsv(0.1, 0.2, 0.25)),
        _part(0.0, 0.0, 0.04, (0.05, 0.05, 1.36), "plain", hsv(0.1, 0.3, 0.4)),
        _part(0.0, 0.0, 1.35, (0.36, 0.36, 0.3), "striped_wallpaper", colour * 1.2, yaw=0.3),
    )
    return Piece(noun=f"{name} floor lamp", width=0.4, depth=0.4, parts=parts)


PieceMaker: TypeAlias = Callable[[np.random.Generator], Piece]

AGAINST_WALLS: dict[str, tuple[PieceMaker, ...]] = {
    "living room": (sofa, television, bookshelf, dresser, plant, lamp, armchair),
    "bedroom": (bed, wardrobe, dresser, desk, lamp, bookshelf),
    "kitchen": (kitchen_counter, kitchen_counter, wardrobe, dresser, plant),
    "study": (desk, bookshelf, bookshelf, sofa, plant, lamp, dresser),
}
IN_THE_MIDDLE: dict[str, tuple[PieceMaker, ...]] = {
    "living room": (table, armchair),
    "bedroom": (armchair,),
    "kitchen": (table,),
    "study": (armchair, table),
}
