"""Layout of a room: its size, what stands in it and what hangs on its walls. Geometry and names only, no texels.

World axes are those of a level camera: x right, y down, z forward; the floor is y = 0, the room's centre x = z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from data_pipeline.synthetic.furniture import AGAINST_WALLS, IN_THE_MIDDLE, Part, Piece
from data_pipeline.synthetic.noise import generator
from data_pipeline.synthetic.pictures import MOTIFS

WALL_GAP_METRES = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """An upright box in the world, turned by `yaw` about the vertical."""

    centre: Float64[np.ndarray, "3"]
    half_size: Float64[np.ndarray, "3"]
    """Along its own x, y, z."""
    yaw: float
    part: Part

    @property
    def axes(self) -> Float64[np.ndarray, "3 3"]:
        """Own x, y, z axes as columns in the world."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Hanging:
    """A picture, window or door painted into a wall; metres from the wall's top left corner, seen from inside."""

    kind: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A furnished room; everything the paths and the caption need."""

    name: str
    kind: str
    width: float
    depth: float
    height: float
    boxes: tuple[Box, ...]
    hangings: tuple[tuple[Hanging, ...], ...]
    """Per wall: north (+z), east (+x), south, west."""
    nouns: tuple[str, ...]
    """One per piece of furniture, in the words of a caption."""
    spots: Float64[np.ndarray, "pieces 2"]
    """Where the pieces stand: x, z."""


def _place(piece: Piece, x: float, z: float, yaw: float) -> list[Box]:
    c, s = np.cos(yaw), np.sin(yaw)
    return [
        Box(
            centre=np.array([x + c * part.x + s * part.z, -part.bottom - part.height / 2, z - s * part.x + c * part.z]),
            half_size=np.array([part.width, part.height, part.depth]) / 2,
            yaw=yaw + part.yaw,
            part=part,
        )
        for part in piece.parts
    ]


def _corners(x: float, z: float, width: float, depth: float, yaw: float) -> Float64[np.ndarray, "4 2"]:
    c, s = np.cos(yaw), np.sin(yaw)
    local = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, depth / 2]
    return np.stack([x + c * local[:, 0] + s * local[:, 1], z - s * local[:, 0] + c * local[:, 1]], axis=1)


def _overlap(first: Float64[np.ndarray, "4 2"], second: Float64[np.ndarray, "4 2"], margin: float) -> bool:
    """Separating axes of two rectangles in the plan."""
    for rectangle in (first, second):
        for edge in (rectangle[1] - rectangle[0], rectangle[3] - rectangle[0]):
            axis = edge / np.linalg.norm(edge)
            a, b = first @ axis, second @ axis
            if a.min() > b.max() + margin or b.min() > a.max() + margin:
                return False
    return True


def _furnish(
    rng: np.random.Generator, kind: str, width: float, depth: float
) -> tuple[list[Box], list[str], list[tuple[float, float]]]:
    """Stand pieces along the walls and turned freely in the middle, none touching another."""
    boxes: list[Box] = []
    taken: list[Float64[np.ndarray, "4 2"]] = []
    nouns: list[str] = []
    spots: list[tuple[float, float]] = []
    against = AGAINST_WALLS[kind]
    makers = [against[0], *(against[int(i)] for i in rng.permutation(np.arange(1, len(against)))[:5])]
    for maker, middle in [*((m, False) for m in makers), *((m, True) for m in IN_THE_MIDDLE[kind])]:
        piece = maker(rng)
        for _ in range(30):
            if middle:
                yaw = float(rng.uniform(-np.pi, np.pi))
                x, z = rng.uniform(-0.2, 0.2) * width, rng.uniform(-0.2, 0.2) * depth
            else:
                wall = int(rng.integers(4))
                yaw = float(np.pi / 2 * wall)
                along, out = (width, depth) if wall % 2 == 0 else (depth, width)
                slack = along / 2 - piece.width / 2 - WALL_GAP_METRES
                if slack <= 0:
                    continue
                offset, distance = rng.uniform(-slack, slack), out / 2 - piece.depth / 2 - WALL_GAP_METRES
                x = offset * np.cos(yaw) + distance * np.sin(yaw)
                z = -offset * np.sin(yaw) + distance * np.cos(yaw)
            corners = _corners(float(x), float(z), piece.width, piece.depth, yaw)
            if not any(_overlap(corners, other, 0.15) for other in taken):
                taken.append(corners)
                boxes += _place(piece, float(x), float(z), yaw)
                nouns.append(piece.noun)
                spots.append((float(x), float(z)))
                break
    return boxes, nouns, spots


def _hang(rng: np.random.Generator, length: float, height: float, opening: str) -> list[Hanging]:
    """Fill a wall from left to right with an opening and pictures, or two pictures one above the other."""
    hangings: list[Hanging] = []
    opening_left = rng.uniform(0.3, max(0.31, length - 2.0)) if opening else np.inf
    left, motifs = rng.uniform(0.15, 0.4), list(MOTIFS)
    while left < length - 0.6:
        if opening and left > opening_left - 0.5:
            width, tall = (0.95, 2.05) if opening == "door" else (min(1.7, length - left - 0.2), rng.uniform(1.15, 1.4))
            top = height - tall if opening == "door" else height - 0.85 - tall
            hangings.append(Hanging(kind=opening, left=left, top=top, width=width, height=tall))
            opening = ""
        else:
            width = float(min(rng.uniform(0.45, 1.15), length - left - 0.15))
            tall = float(rng.uniform(0.45, 1.0))
            top = float(np.clip(height - 1.55 - tall / 2 + rng.uniform(-0.2, 0.15), 0.15, height - tall - 0.3))
            hangings.append(
                Hanging(kind=motifs[rng.integers(len(motifs))], left=left, top=top, width=width, height=tall)
            )
        left += width + rng.uniform(0.15, 0.45)
    return hangings


def furnish_room(name: str) -> Room:
    """Lay out the room called `name`; the same name gives the same room."""
    rng = generator("room", name)
    kind = list(AGAINST_WALLS)[rng.integers(len(AGAINST_WALLS))]
    width, depth, height = rng.uniform(5.0, 7.0), rng.uniform(4.6, 6.4), rng.uniform(2.5, 2.9)
    boxes, nouns, spots = _furnish(rng, kind, width, depth)
    openings = [("window", "door", "", "window")[i] for i in rng.permutation(4)]
    hangings = tuple(
        tuple(_hang(rng, width if wall % 2 == 0 else depth, height, opening)) for wall, opening in enumerate(openings)
    )
    return Room(
        name=name, kind=kind, width=width, depth=depth, height=height,
        boxes=tuple(boxes), hangings=hangings, nouns=tuple(nouns), spots=np.array(spots).reshape(-1, 2),
    )  # fmt: skip
