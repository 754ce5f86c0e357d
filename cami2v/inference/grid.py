"""Videos of one image in one: rows and columns with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from cami2v.inference.clip_video import LEGIBLE_PIXELS, enlarged

Frames = UInt8[np.ndarray, "_frames _height _width 3"]

GAP = 4
TEXT_PIXELS = 16


def labelled_grid(
    cells: Mapping[tuple[str, str], Frames], rows: Sequence[str], columns: Sequence[str]
) -> UInt8[np.ndarray, "frames _height _width 3"]:
    """Place videos by (row, column) in a grid with the names of its rows and columns; a missing cell stays white.

    Shorter videos stay on their last frame; videos of other sizes than the first are resized to it.
    """
    first = next(iter(cells.values()))
    frames = max(len(video) for video in cells.values())
    height, width = enlarged(first[:1], LEGIBLE_PIXELS).shape[1:3]
    font = ImageFont.load_default(size=TEXT_PIXELS)
    left = max(_width(name, font) for name in rows) + 3 * GAP
    top = TEXT_PIXELS + 3 * GAP
    total = (top + len(rows) * (height + GAP), left + len(columns) * (width + GAP))
    grid = np.full((frames, *(side + side % 2 for side in total), 3), 255, np.uint8)
    grid[:] = np.asarray(_labels(grid.shape[1:3], rows, columns, (top, left), (height, width), font))
    for (row, column), video in cells.items():
        y = top + rows.index(row) * (height + GAP)
        x = left + columns.index(column) * (width + GAP)
        shown = _fitted(video, (height, width))
        grid[:, y : y + height, x : x + width] = shown[np.minimum(np.arange(frames), len(shown) - 1)]
    return grid


def _labels(
    size: tuple[int, ...],
    rows: Sequence[str],
    columns: Sequence[str],
    start: tuple[int, int],
    cell: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> Image.Image:
    picture = Image.new("RGB", (size[1], size[0]), "white")
    draw = ImageDraw.Draw(picture)
    (top, left), (height, width) = start, cell
    for number, name in enumerate(columns):
        middle = left + number * (width + GAP) + width // 2
        draw.text((middle, top // 2), _shortened(name, width, font), fill="black", font=font, anchor="mm")
    for number, name in enumerate(rows):
        draw.text((GAP, top + number * (height + GAP) + height // 2), name, fill="black", font=font, anchor="lm")
    return picture


def _fitted(video: Frames, size: tuple[int, int]) -> Frames:
    video = enlarged(video, LEGIBLE_PIXELS)
    if video.shape[1:3] == size:
        return video
    return np.stack([np.asarray(Image.fromarray(frame).resize((size[1], size[0]))) for frame in video])


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while len(text) > 4 and _width(text, font) > width:
        text = text[:-4] + "..."
    return text


def _width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(font.getbbox(text)[2])
