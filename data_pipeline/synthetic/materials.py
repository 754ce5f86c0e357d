"""Procedural materials of walls, floors and furniture, painted in texels of `density` per metre."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from data_pipeline.synthetic.noise import fractal_noise, soft_step, value_noise

Texture: TypeAlias = Float32[np.ndarray, "height width 3"]
Colour: TypeAlias = Float32[np.ndarray, "3"]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the RGB colour in [0, 1] of a hue in turns, a saturation and a value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def _tinted(colour: Colour, luminance: Float32[np.ndarray, "height width"]) -> Texture:
    return colour * luminance[..., None]


def _coordinates(height: int, width: int) -> tuple[Float32[np.ndarray, "height 1"], Float32[np.ndarray, "1 width"]]:
    return np.arange(height, dtype=np.float32)[:, None] + 0.5, np.arange(width, dtype=np.float32)[None] + 0.5


def _groove(position: Float32[np.ndarray, "*shape"], period: float, width: float) -> Float32[np.ndarray, "*shape"]:
    """Return 1 on a groove of `width` texels at each multiple of `period`, else 0."""
    distance = np.abs((position + period / 2) % period - period / 2)
    return soft_step(width / 2 - distance)


def plaster(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint a wall rolled unevenly: soft clouds, trowel marks and speckles."""
    clouds = fractal_noise(rng, height, width, density / 2, gain=0.8)
    spots = soft_step(value_noise(rng, height, width, density / 24) - 1.5, 0.3)
    return _tinted(colour, 1 + 0.07 * clouds - 0.18 * spots)


def striped_wallpaper(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint vertical stripes of uneven widths and tones on rough paper."""
    _, x = _coordinates(height, width)
    tone = np.zeros((1, width), np.float32)
    edge = 0.0
    while edge < width:
        tone += np.float32(rng.uniform(-0.14, 0.14)) * soft_step(x - edge)
        edge += rng.uniform(0.06, 0.3) * density
    paper = fractal_noise(rng, height, width, density / 4, gain=0.85)
    return _tinted(colour, np.clip(1 + tone, 0.72, 1.2) + 0.06 * paper)


def floral_wallpaper(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint a jittered lattice of blossoms, no two alike, over soft paper."""
    y, x = _coordinates(height, width)
    texture = _tinted(colour, 1 + 0.06 * fractal_noise(rng, height, width, density / 3, gain=0.85))
    hue, period = rng.random(), rng.uniform(0.3, 0.42) * density
    for row in range(int(height / period) + 2):
        for column in range(int(width / period) + 2):
            centre_y = (row + rng.uniform(-0.22, 0.22)) * period
            centre_x = (column + 0.5 * (row % 2) + rng.uniform(-0.22, 0.22)) * period
            radius, petals, phase = rng.uniform(0.18, 0.34) * period, int(rng.integers(3, 8)), rng.uniform(0, 6.28)
            ink = hsv(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.9))
            rows = slice(max(0, int(centre_y - period / 2)), max(0, int(centre_y + period / 2)))
            columns = slice(max(0, int(centre_x - period / 2)), max(0, int(centre_x + period / 2)))
            patch = texture[rows, columns]
            if patch.size:
                dy, dx = y[rows] - np.float32(centre_y), x[:, columns] - np.float32(centre_x)
                angle, distance = np.arctan2(dy, dx), np.hypot(dy, dx)
                alpha = soft_step(radius * (0.7 + 0.3 * np.cos(petals * angle + np.float32(phase))) - distance, 1.5)
                alpha = alpha * (1 - 0.7 * soft_step(0.22 * radius - distance, 1.5)) * np.float32(0.75)
                patch += alpha[..., None] * (ink - patch)
    return texture


def brick(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint running-bond brickwork with a tone and a hue of its own per brick."""
    y, x = _coordinates(height, width)
    course, length, joint = 0.085 * density, 0.24 * density, 0.012 * density
    row = np.floor(y / course)
    shifted = x + np.float32(length / 2) * (row % 2)
    rows, columns = int(row.max()) + 1, int(shifted.max() / length) + 1
    tones = rng.uniform(0.62, 1.15, (rows, columns, 1)) * (1 + rng.uniform(-0.1, 0.1, (rows, columns, 3)))
    brickwork = colour * tones.astype(np.float32)[row.astype(int), (shifted / length).astype(int)]
    mortar = np.maximum(_groove(y, course, joint), _groove(shifted, length, joint))[..., None]
    rough = 1 + 0.10 * fractal_noise(rng, height, width, density / 8, gain=0.85)
    return (brickwork + mortar * (np.float32(0.72) - brickwork)) * rough[..., None]


def planks(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint staggered wooden boards along the columns, each with its own tone, grain and length."""
    y, x = _coordinates(height, width)
    board, length = 0.14 * density, 1.1 * density
    row = np.floor(y / board).astype(int)
    offsets = rng.uniform(0, length, row.max() + 1).astype(np.float32)
    shifted = x + offsets[row]
    column = (shifted / length).astype(int)
    tones = rng.uniform(0.68, 1.12, (row.max() + 1, column.max() + 1)).astype(np.float32)[row, column]
    grain = fractal_noise(rng, height, width, density / 24, gain=0.8, stretch=9.0)
    clouds = fractal_noise(rng, height, width, density / 3, gain=0.8)
    gap = np.maximum(_groove(y, board, 0.008 * density), _groove(shifted, length, 0.008 * density))
    return _tinted(colour, tones * (1 + 0.10 * grain + 0.05 * clouds) * (1 - 0.6 * gap))


def wood(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint one piece of timber, grain along its longer side."""
    if height > width:
        return wood(rng, width, height, density, colour).transpose(1, 0, 2)
    grain = fractal_noise(rng, height, width, density / 30, gain=0.9, stretch=8.0)
    rings = np.sin(5 * value_noise(rng, height, width, density / 9, stretch=9.0))
    return _tinted(colour, 1 + 0.09 * grain + 0.04 * rings)


def tiles(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint square tiles in two families of tones, marbled, with light joints."""
    y, x = _coordinates(height, width)
    side = 0.33 * density
    row, column = (y / side).astype(int), (x / side).astype(int)
    shape = (row.max() + 1, column.max() + 1)
    checker = np.where(np.indices(shape).sum(0) % 2 == 0, 1.0, rng.uniform(0.55, 0.8))
    tones = (checker * rng.uniform(0.85, 1.12, shape)).astype(np.float32)[row, column]
    veins = 1 - 0.25 * np.exp(-8 * np.abs(fractal_noise(rng, height, width, density / 2, gain=0.75)))
    clouds = 1 + 0.06 * fractal_noise(rng, height, width, density / 8, gain=0.85)
    joint = np.maximum(_groove(y, side, 0.012 * density), _groove(x, side, 0.012 * density))[..., None]
    surface = _tinted(colour, tones * veins * clouds)
    return surface + joint * (np.float32(0.8) - surface) * np.float32(0.8)


def fabric(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint upholstery: mottled cloth, sometimes with a two-way check."""
    y, x = _coordinates(height, width)
    cloth = 1 + 0.11 * fractal_noise(rng, height, width, density / 6, gain=0.9)
    if rng.random() < 0.4:
        period = rng.uniform(0.08, 0.16) * density
        cloth = cloth * (1 - 0.22 * _groove(y, period, period / 3)) * (1 - 0.22 * _groove(x, period, period / 3))
    return _tinted(colour, cloth)


def carpet(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint a bordered rug with nested lozenges in two more colours."""
    y, x = _coordinates(height, width)
    inner, band = hsv(rng.random(), 0.5, 0.55), hsv(rng.random(), 0.35, 0.85)
    edge = np.minimum(np.minimum(y, height - y), np.minimum(x, width - x))
    lozenge = np.abs(y / height - 0.5) + np.abs(x / width - 0.5)
    waves = np.sin(lozenge * np.float32(rng.uniform(20, 45)) + np.float32(rng.uniform(0, 6)))
    texture = colour + soft_step(waves, 0.15)[..., None] * (inner - colour)
    ring = soft_step(edge - 0.06 * density) * (1 - soft_step(edge - 0.14 * density))
    texture = texture + ring[..., None] * (band - texture)
    return texture * (1 + 0.13 * fractal_noise(rng, height, width, density / 8, gain=0.9))[..., None]


def books(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint an open bookcase: shelves of `colour` with spines of many colours between them."""
    texture = wood(rng, height, width, density, colour)
    shelves = max(1, round(height / (0.34 * density)))
    pitch, board = height / shelves, 0.03 * density
    for shelf in range(shelves):
        top, bottom = int(shelf * pitch + board), int((shelf + 1) * pitch - board / 2)
        texture[top:bottom, int(board) : int(width - board)] *= 0.25
        left = board
        while left < width - 1.5 * board:
            right = min(left + rng.uniform(0.025, 0.075) * density, width - board)
            rise = top + rng.uniform(0.05, 0.4) * (bottom - top)
            spine = hsv(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.9))
            texture[int(rise) : bottom, int(left) : int(right)] = spine
            label = int(rise + rng.uniform(0.15, 0.5) * (bottom - rise))
            texture[label : label + int(0.035 * density), int(left) : int(right)] *= rng.uniform(0.4, 1.5)
            left = right + (0.0, 0.004, 0.004, 0.03)[rng.integers(4)] * density
    return texture * (1 + 0.05 * fractal_noise(rng, height, width, density / 10))[..., None]


def drawers(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint cabinet fronts: a grid of doors or drawers with dark joints and bright knobs."""
    y, x = _coordinates(height, width)
    rows, columns = max(1, round(height / (0.32 * density))), max(1, round(width / (0.5 * density)))
    pitch_y, pitch_x = height / rows, width / columns
    tones = rng.uniform(0.88, 1.08, (rows, columns)).astype(np.float32)
    tone = tones[np.minimum((y / pitch_y).astype(int), rows - 1), np.minimum((x / pitch_x).astype(int), columns - 1)]
    joint = np.maximum(_groove(y, pitch_y, 0.012 * density), _groove(x, pitch_x, 0.012 * density))
    texture = wood(rng, height, width, density, colour) * (tone * (1 - 0.65 * joint))[..., None]
    distance = np.hypot(y % pitch_y - pitch_y / 2, x % pitch_x - pitch_x / 2)
    knob = soft_step(np.float32(0.022 * density) - distance)[..., None]
    return texture + knob * (np.array([0.92, 0.88, 0.7], np.float32) - texture)


def foliage(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint leaves: overlapping light and dark blotches."""
    leaves = fractal_noise(rng, height, width, density / 10, gain=0.9)
    return _tinted(colour, 0.8 + 0.35 * np.tanh(1.5 * leaves))


def plain(rng: np.random.Generator, height: int, width: int, density: int, colour: Colour) -> Texture:
    """Paint a lacquered or metal surface with faint wear."""
    return _tinted(colour, 1 + 0.06 * fractal_noise(rng, height, width, density / 6, gain=0.85))


Painter: TypeAlias = Callable[[np.random.Generator, int, int, int, Colour], Texture]

MATERIALS: dict[str, Painter] = {
    painter.__name__: painter
    for painter in (
        plaster,
        striped_wallpaper,
        floral_wallpaper,
        brick,
        planks,
        wood,
        tiles,
        fabric,
        carpet,
        books,
        drawers,
        foliage,
        plain,
    )
}
WALLS = ("plaster", "striped_wallpaper", "floral_wallpaper", "brick", "plaster")
FLOORS = ("planks", "tiles", "planks")


def paint(
    material: str, rng: np.random.Generator, width_metres: float, height_metres: float, density: int, colour: Colour
) -> Texture:
    """Paint `material` on a rectangle of the given size; values stay near [0, 1] but are not clipped."""
    height, width = max(2, round(height_metres * density)), max(2, round(width_metres * density))
    return np.ascontiguousarray(MATERIALS[material](rng, height, width, density, colour), np.float32)
