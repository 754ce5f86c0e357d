"""What hangs in the walls: paintings, posters, maps, windows and doors, as opaque rectangles of texels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from data_pipeline.synthetic.materials import Texture, fabric, hsv, wood
from data_pipeline.synthetic.noise import fractal_noise, soft_step, value_noise

Motif: TypeAlias = Callable[[np.random.Generator, int, int, int], Texture]


def _unit_coordinates(
    height: int, width: int
) -> tuple[Float32[np.ndarray, "height 1"], Float32[np.ndarray, "1 width"]]:
    """Return rows and columns of texel centres, both in units of the height."""
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    return y, (np.arange(width, dtype=np.float32)[None] + 0.5) / height


def _cover(texture: Texture, alpha: Float32[np.ndarray, "height width"], colour: Float32[np.ndarray, "3"]) -> None:
    texture += alpha[..., None] * (colour - texture)


def landscape(rng: np.random.Generator, height: int, width: int, density: int) -> Texture:
    """Paint hills in front of hills under a sky with a sun."""
    y, x = _unit_coordinates(height, width)
    hue = rng.random() if rng.random() < 0.4 else rng.uniform(0.5, 0.62)
    top, bottom = hsv(hue, 0.55, 0.75), hsv(hue + rng.uniform(0.3, 0.5), 0.25, 0.98)
    texture = top + np.broadcast_to(y, (height, width))[..., None] * (bottom - top)
    clouds = soft_step(fractal_noise(rng, height, width, height / 4, stretch=2.5) - 0.5, 0.5)
    _cover(texture, 0.5 * clouds, hsv(hue, 0.05, 1.0))
    sun = np.hypot(y - rng.uniform(0.15, 0.35), x - rng.uniform(0.15, 0.85) * width / height)
    _cover(texture, soft_step((0.09 - sun) * height), hsv(rng.uniform(0.0, 0.15), 0.6, 1.0))
    for layer in range(4):
        ridge = 0.42 + 0.14 * layer + 0.07 * value_noise(rng, 1, width, max(width / (4 + 2 * layer), 3.0))
        ridge = ridge + 0.015 * value_noise(rng, 1, width, max(width / 40, 3.0))
        tone = hsv(hue + 0.15 * layer + rng.uniform(-0.1, 0.1), 0.35 + 0.1 * layer, 0.75 - 0.13 * layer)
        _cover(texture, soft_step((y - ridge) * height), tone)
    return texture


def mondrian(rng: np.random.Generator, height: int, width: int, density: int) -> Texture:
    """Paint coloured rectangles between black bars."""
    texture = np.full((height, width, 3), 0.92, np.float32)
    bar = max(2, round(0.012 * density))
    pending = [(0, height, 0, width)]
    while pending:
        top, bottom, left, right = pending.pop()
        tall, wide = bottom - top, right - left
        if max(tall, wide) < 0.16 * density or (max(tall, wide) < 0.4 * density and rng.random() < 0.3):
            if rng.random() < 0.7:
                texture[top:bottom, left:right] = hsv(
                    (0.0, 0.13, 0.6, 0.55, 0.33)[rng.integers(5)], rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.95)
                )
            texture[top : top + bar, left:right] = texture[top:bottom, left : left + bar] = 0.08
        elif tall > wide:
            cut = top + round(tall * rng.uniform(0.3, 0.7))
            pending += [(top, cut, left, right), (cut, bottom, left, right)]
        else:
            cut = left + round(wide * rng.uniform(0.3, 0.7))
            pending += [(top, bottom, left, cut), (top, bottom, cut, right)]
    return texture


def discs(rng: np.random.Generator, height: int, width: int, density: int) -> Texture:
    """Paint concentric discs scattered over a tinted ground."""
    y, x = _unit_coordinates(height, width)
    hue = rng.random()
    texture = np.broadcast_to(hsv(hue, 0.25, 0.9), (height, width, 3)).copy()
    for _ in range(14):
        distance = np.hypot(y - rng.random(), x - rng.random() * width / height)
        radius = rng.uniform(0.06, 0.24)
        for ring in range(3):
            ink = hsv(hue + rng.uniform(-0.35, 0.35), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.95))
            _cover(texture, soft_step((radius * (1 - 0.32 * ring) - distance) * height), ink)
    return texture


def portrait(rng: np.random.Generator, height: int, width: int, density: int) -> Texture:
    """Paint head and shoulders before a mottled backdrop."""
    y, x = _unit_coordinates(height, width)
    x = x - width / height / 2
    ground, coat, skin, hair = (hsv(rng.random(), 0.4, value) for value in (0.45, 0.3, 0.8, 0.2))
    skin = hsv(rng.uniform(0.04, 0.09), rng.uniform(0.25, 0.55), rng.uniform(0.5, 0.9))
    texture = ground * (1 + 0.25 * fractal_noise(rng, height, width, height / 4))[..., None]
    _cover(texture, soft_step((1 - np.hypot((y - 1.1) / 0.4, x / 0.36)) * 0.4 * height), coat)
    _cover(texture, soft_step((1 - np.hypot((y - 0.38) / 0.26, x / 0.21)) * 0.2 * height), hair)
    _cover(texture, soft_step((1 - np.hypot((y - 0.45) / 0.21, x / 0.15)) * 0.2 * height), skin)
    for side in (-0.06, 0.06):
        _cover(texture, soft_step((0.018 - np.hypot(y - 0.42, x - side)) * height), hair)
    _cover(texture, soft_step((1 - np.hypot((y - 0.56) / 0.015, x / 0.06)) * 0.015 * height), coat)
    return texture


def world_map(rng: np.random.Generator, height: int, width: int, density: int) -> Texture:
    """Paint land and sea with shelves and a graticule."""
    y, x = _unit_coordinates(height, width)
    relief = fractal_noise(rng, height, width, height / 3, gain=0.6)
    texture = np.broadcast_to(hsv(0.57, 0.45, 0.7), (height, width, 3)).copy()
    for level, tone in (
        (-0.15, hsv(0.54, 0.3, 0.85)),
        (0.1, hsv(0.2, 0.35, 0.8)),
        (0.7, hsv(0.1, 0.45, 0.7)),
        (1.3, hsv(0.07, 0.5, 0.5)),
    ):
        _cover(texture, soft_step(relief - level, 0.08), tone)
    for lines in (y, x):
        distance = np.abs(lines % 0.2 - 0.1) * height
        _cover(texture, np.broadcast_to(0.5 * soft_step(1.0 - distance), (height, width)), hsv(0.6, 0.3, 0.3))
    return texture


def poster(rng: np.random.Generator, height: int, width: int, density: int) -> Texture:
    """Paint a bold shape over lines of block letters."""
    y, x = _unit_coordinates(height, width)
    hue = rng.random()
    texture = np.broadcast_to(hsv(hue, 0.6, 0.85), (height, width, 3)).copy()
    angle = np.arctan2(y - 0.36, x - width / height / 2)
    rays = np.sin(int(rng.integers(5, 12)) * angle)
    _cover(texture, soft_step(rays, 0.1) * 0.8, hsv(hue + 0.08, 0.4, 0.98))
    distance = np.hypot(y - 0.36, x - width / height / 2)
    _cover(texture, soft_step((0.2 - distance) * height), hsv(hue + 0.5, 0.7, 0.4))
    for line, size in ((0.7, 0.1), (0.83, 0.05), (0.91, 0.05)):
        letter = size * height
        cells = rng.random((3, 4 * int(width / letter) + 1)) < 0.6
        cells[:, ::4] = False
        top = int(line * height)
        rows = np.minimum((np.arange(int(letter)) * 3 / letter).astype(int), 2)
        columns = (np.arange(width) * 4 / letter).astype(int)
        texture[top : top + int(letter)][cells[rows][:, np.minimum(columns, cells.shape[1] - 1)]] = hsv(hue, 0.9, 0.15)
    return texture


MOTIFS: dict[str, Motif] = {
    "landscape": landscape,
    "mondrian": mondrian,
    "discs": discs,
    "portrait": portrait,
    "map": world_map,
    "poster": poster,
}


def picture(rng: np.random.Generator, motif: str, width_metres: float, height_metres: float, density: int) -> Texture:
    """Paint a framed `motif`."""
    height, width = max(8, round(height_metres * density)), max(8, round(width_metres * density))
    border = max(1, round(rng.uniform(0.02, 0.05) * density))
    mount = round((0.0, 0.04)[rng.integers(2)] * density)
    frame_colour = hsv(rng.uniform(0.05, 0.13), rng.uniform(0.1, 0.7), (0.15, 0.45, 0.8)[rng.integers(3)])
    framed = wood(rng, height, width, density, frame_colour)
    framed[border : height - border, border : width - border] = 0.93
    inset = border + mount
    inner_height, inner_width = max(4, height - 2 * inset), max(4, width - 2 * inset)
    canvas = MOTIFS[motif](rng, inner_height, inner_width, density)
    canvas = canvas * (1 + 0.05 * fractal_noise(rng, inner_height, inner_width, density / 12, gain=0.9))[..., None]
    framed[inset : inset + inner_height, inset : inset + inner_width] = canvas
    return framed


def window(rng: np.random.Generator, width_metres: float, height_metres: float, density: int) -> Texture:
    """Paint a bright landscape behind muntins, with curtains at both sides."""
    height, width = max(8, round(height_metres * density)), max(8, round(width_metres * density))
    texture = 0.25 + 0.8 * landscape(rng, height, width, density)
    bar = max(1, round(0.03 * density))
    for fraction in (0.0, 0.5, 1.0):
        row, column = round(fraction * (height - bar)), round(fraction * (width - bar))
        texture[row : row + bar] = texture[:, column : column + bar] = 0.95
    drape = max(4, round(0.16 * width))
    colour = hsv(rng.random(), rng.uniform(0.3, 0.7), rng.uniform(0.5, 0.85))
    folds = 1 + 0.22 * np.sin(np.arange(drape, dtype=np.float32) / np.float32(0.018 * density))[None, :, None]
    texture[:, :drape] = fabric(rng, height, drape, density, colour) * folds
    texture[:, width - drape :] = fabric(rng, height, drape, density, colour) * folds[:, ::-1]
    return texture


def door(rng: np.random.Generator, width_metres: float, height_metres: float, density: int) -> Texture:
    """Paint a panelled door in its frame, with a handle."""
    height, width = max(8, round(height_metres * density)), max(8, round(width_metres * density))
    colour = hsv(rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.6), rng.uniform(0.45, 0.9))
    texture = wood(rng, height, width, density, colour)
    bevel = max(1, round(0.015 * density))
    for top, bottom in ((0.07, 0.3), (0.35, 0.6), (0.65, 0.94)):
        for left, right in ((0.12, 0.46), (0.54, 0.88)):
            rows = slice(round(top * height), round(bottom * height))
            columns = slice(round(left * width), round(right * width))
            texture[rows, columns] *= 0.7
            texture[rows.start + bevel : rows.stop, columns.start + bevel : columns.stop] *= 1.5
    frame = max(1, round(0.05 * density))
    texture[:, :frame] = texture[:, -frame:] = texture[:frame] = 0.9
    row, column = round(0.52 * height), round(0.9 * width)
    texture[row : row + 2 * bevel, column - 6 * bevel : column] = np.array([0.9, 0.8, 0.45], np.float32)
    return texture
