"""Textured rectangles of a room, and their texels packed with mip levels for one flat lookup."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt32

from data_pipeline.synthetic.lighting import bake_light
from data_pipeline.synthetic.materials import FLOORS, WALLS, Texture, hsv, paint
from data_pipeline.synthetic.noise import generator
from data_pipeline.synthetic.pictures import MOTIFS, door, picture, window
from data_pipeline.synthetic.rooms import Box, Room, furnish_room

ROOM_OVERHANG_METRES = 0.01
"""Faces of the room reach this far into each other, so that no ray slips through a corner."""

BOX_FACES = (
    ((2, -1), (0, 1), (1, 1)),
    ((0, 1), (2, 1), (1, 1)),
    ((2, 1), (0, -1), (1, 1)),
    ((0, -1), (2, -1), (1, 1)),
    ((1, -1), (0, 1), (2, -1)),
    ((1, 1), (0, 1), (2, 1)),
)
"""Front, right, back, left, top, bottom: (own axis, sign) of the outward normal, of `right` and of `down`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle:
    """A one-sided textured rectangle, seen from the side that sees `right` x `down` pointing away."""

    corner: Float64[np.ndarray, "3"]
    right: Float64[np.ndarray, "3"]
    down: Float64[np.ndarray, "3"]
    width: float
    height: float
    overhang: float
    box: int
    """Index of the box whose face this is, -1 for the room's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A room ready to be ray-cast."""

    room: Room
    corner: Float64[np.ndarray, "rectangles 3"]
    right: Float64[np.ndarray, "rectangles 3"]
    down: Float64[np.ndarray, "rectangles 3"]
    size: Float64[np.ndarray, "rectangles 2"]
    overhang: Float64[np.ndarray, " rectangles"]
    texels_per_metre: int
    texels: UInt32[np.ndarray, " texels"]
    """Red, green, blue in the three low bytes."""
    levels: int
    offset: Int64[np.ndarray, " rectangles_by_levels"]
    columns: Int64[np.ndarray, " rectangles_by_levels"]
    rows: Int64[np.ndarray, " rectangles_by_levels"]


def box_faces(box: Box, index: int) -> list[Rectangle]:
    """Return front, right, back, left and top of a box, and its bottom where a standing person can see it."""
    faces = []
    for directions in BOX_FACES if box.part.bottom > 1.0 else BOX_FACES[:-1]:
        out, right, down = (sign * box.axes[:, axis] for axis, sign in directions)
        reach, half_width, half_height = (float(box.half_size[axis]) for axis, _ in directions)
        corner = box.centre + reach * out - half_width * right - half_height * down
        rectangle = Rectangle(
            corner=corner, right=right, down=down, width=2 * half_width, height=2 * half_height, overhang=0.0, box=index
        )
        faces.append(rectangle)
    return faces


def room_faces(room: Room) -> list[Rectangle]:
    """Return the north, east, south and west walls, the floor and the ceiling, seen from inside."""
    x, y, z = np.eye(3)
    w, d, h = room.width / 2, room.depth / 2, room.height
    faces = [
        (-w * x - h * y + d * z, x, y, 2 * w, h),
        (w * x - h * y + d * z, -z, y, 2 * d, h),
        (w * x - h * y - d * z, -x, y, 2 * w, h),
        (-w * x - h * y - d * z, z, y, 2 * d, h),
        (-w * x + d * z, x, -z, 2 * w, 2 * d),
        (-w * x - h * y - d * z, x, z, 2 * w, 2 * d),
    ]
    return [
        Rectangle(corner=c, right=r, down=b, width=wide, height=tall, overhang=ROOM_OVERHANG_METRES, box=-1)
        for c, r, b, wide, tall in faces
    ]


def _hang_pictures(texture: Texture, room: Room, wall: int, density: int) -> None:
    """Paint the wall's pictures, window and door over `texture`, each over a soft shadow."""
    for number, item in enumerate(room.hangings[wall]):
        rng = generator("hanging", room.name, wall, number)
        if item.kind in MOTIFS:
            image = picture(rng, item.kind, item.width, item.height, density)
        else:
            image = (window if item.kind == "window" else door)(rng, item.width, item.height, density)
        top, left, blur = round(item.top * density), round(item.left * density), max(1, round(0.012 * density))
        for spread in range(3 * blur, 0, -blur):
            texture[
                max(0, top - spread // 2) : top + image.shape[0] + spread,
                max(0, left - spread) : left + image.shape[1] + spread,
            ] *= 0.87
        target = texture[top : top + image.shape[0], left : left + image.shape[1]]
        target[:] = image[: target.shape[0], : target.shape[1]]


def paint_room_face(room: Room, face: int, rectangle: Rectangle, density: int) -> Texture:
    """Paint wall 0-3, the floor (4) or the ceiling (5)."""
    base, rng = generator("palette", room.name), generator("face", room.name, face)
    hue = base.random()
    wall_hues = hue + np.array([0.0, 0.22, 0.5, 0.74]) + base.uniform(-0.06, 0.06, 4)
    size = (rectangle.width, rectangle.height, density)
    if face == 4:
        return paint(
            FLOORS[rng.integers(len(FLOORS))],
            rng,
            *size,
            hsv(rng.uniform(0.05, 0.12), rng.uniform(0.2, 0.55), rng.uniform(0.55, 0.8)),
        )
    if face == 5:
        return paint("plaster", rng, *size, hsv(hue + 0.1, 0.05, 0.95))
    colour = hsv(float(wall_hues[face]), rng.uniform(0.18, 0.42), rng.uniform(0.7, 0.92))
    texture = paint(WALLS[rng.integers(len(WALLS))], rng, *size, colour)
    skirting = max(1, round(0.09 * density))
    texture[-skirting:] = np.float32(0.88)
    texture[-skirting : -skirting + max(1, skirting // 8)] = np.float32(0.5)
    _hang_pictures(texture, room, face, density)
    return texture


def paint_box_face(room: Room, rectangle: Rectangle, face: int, density: int) -> Texture:
    """Paint one face of a piece of furniture."""
    part, rng = room.boxes[rectangle.box].part, generator("part", room.name, rectangle.box, face)
    material = part.front if face == 0 else part.material
    if material in MOTIFS:
        return picture(rng, material, rectangle.width, rectangle.height, density)
    return paint(material, rng, rectangle.width, rectangle.height, density, np.asarray(part.colour, np.float32))


def _halve(image: UInt8[np.ndarray, "height width 4"]) -> UInt8[np.ndarray, "half_height half_width 4"]:
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
    return ((even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2] + 2) // 4).astype(np.uint8)


def _pack(images: list[UInt8[np.ndarray, "_ _ 4"]], levels: int) -> dict[str, np.ndarray]:
    """Lay all mip levels of all images one after the other."""
    chunks, offset, rows, columns, position = [], [], [], [], 0
    for image in images:
        for _ in range(levels):
            offset.append(position)
            rows.append(image.shape[0])
            columns.append(image.shape[1])
            chunks.append(image.reshape(-1))
            position += image.shape[0] * image.shape[1]
            image = _halve(image)
    texels = np.concatenate(chunks).view(np.uint32)
    return {"texels": texels, "offset": np.array(offset), "rows": np.array(rows), "columns": np.array(columns)}


@lru_cache(maxsize=1)
def build_scene(room_name: str, texels_per_metre: int, levels: int) -> Scene:
    """Paint and light every surface of a room; the last one is kept, as a worker stays in a room."""
    room = furnish_room(room_name)
    rectangles = [(face, rectangle) for face, rectangle in enumerate(room_faces(room))]
    for index, box in enumerate(room.boxes):
        rectangles += enumerate(box_faces(box, index))
    images = []
    for face, rectangle in rectangles:
        if rectangle.box < 0:
            texture = paint_room_face(room, face, rectangle, texels_per_metre)
        else:
            texture = paint_box_face(room, rectangle, face, texels_per_metre)
        texture *= bake_light(
            room, rectangle.corner, rectangle.right, rectangle.down, rectangle.box, texture.shape[:2], texels_per_metre
        )[..., None]
        packed = np.zeros((*texture.shape[:2], 4), np.uint8)
        packed[..., :3] = np.clip(texture * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
        images.append(packed)
    plain = [rectangle for _, rectangle in rectangles]
    return Scene(
        room=room,
        corner=np.stack([r.corner for r in plain]),
        right=np.stack([r.right for r in plain]),
        down=np.stack([r.down for r in plain]),
        size=np.array([[r.width, r.height] for r in plain]),
        overhang=np.array([r.overhang for r in plain]),
        texels_per_metre=texels_per_metre,
        levels=levels,
        **_pack(images, levels),
    )
