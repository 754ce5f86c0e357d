"""Exact ray casting of a scene of textured rectangles by a pinhole camera.

Over the image, the inverse depth w of a plane is affine in the ray (x, y, 1), and so are u w and v w for the metres u
and v across the rectangle. So a ray hits where w, u w, v w, (width - u) w and (height - v) w are all positive, and the
nearest hit has the largest w: five affine functions and no division per ray and rectangle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int64, UInt8

from data_pipeline.synthetic.surfaces import Scene

NEAR_METRES = 0.05
SHARPNESS_LEVELS = 0.35
"""Mip levels finer than the longest footprint asks for: a grazing surface keeps detail across its short direction."""
SHADED_AT_ONCE = 16384
"""Rays per block of texture lookups, so that its temporaries stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """The visible rectangles of a scene in one camera: affine coefficients on rays (x, y, 1)."""

    rectangles: Int64[np.ndarray, " visible"]
    inverse_depth: Float32[np.ndarray, "visible 3"]
    right: Float32[np.ndarray, "visible 3"]
    """u w."""
    down: Float32[np.ndarray, "visible 3"]
    """v w."""
    tests: Float32[np.ndarray, "visible 4 3"]
    """Positive inside the four edges."""
    bounds: Int64[np.ndarray, "visible 4"]
    """First and last + 1 column and row that may see it."""
    level: Float32[np.ndarray, " visible"]
    """Mip level of a perpendicular surface at one metre, on the optical axis."""


def _bounds(
    corners: Float64[np.ndarray, "n 4 3"], intrinsics: Float64[np.ndarray, "4"], height: int, width: int
) -> Int64[np.ndarray, "n 4"]:
    """Return the image bounds of quadrilaterals given in camera axes, clipped at the near plane."""
    following = np.roll(corners, -1, axis=1)
    step = following[..., 2] - corners[..., 2]
    crossing = (corners[..., 2] > NEAR_METRES) != (following[..., 2] > NEAR_METRES)
    fraction = np.where(crossing, (NEAR_METRES - corners[..., 2]) / np.where(crossing, step, 1), 0)
    points = np.concatenate([corners, corners + fraction[..., None] * (following - corners)], axis=1)
    valid = np.concatenate([corners[..., 2] > NEAR_METRES, crossing], axis=1)
    focal_x, focal_y, centre_x, centre_y = intrinsics
    depth = np.where(valid, points[..., 2], 1)
    x = focal_x * points[..., 0] / depth + centre_x
    y = focal_y * points[..., 1] / depth + centre_y
    low, high = (
        [np.where(valid, p, np.inf).min(1) for p in (x, y)],
        [np.where(valid, p, -np.inf).max(1) for p in (x, y)],
    )
    edges = [np.floor(low[0]), np.ceil(high[0]), np.floor(low[1]), np.ceil(high[1])]
    limits = (width, width, height, height)
    return np.stack([np.clip(e, 0, limit) for e, limit in zip(edges, limits, strict=True)], axis=1).astype(np.int64)


def _view(
    scene: Scene,
    camera_to_world: Float64[np.ndarray, "4 4"],
    intrinsics: Float64[np.ndarray, "4"],
    height: int,
    width: int,
) -> _View:
    axes, centre = camera_to_world[:3, :3], camera_to_world[:3, 3]
    towards = scene.corner - centre
    normal = -np.cross(scene.right, scene.down)
    distance = (normal * towards).sum(1)
    over, size = scene.overhang[:, None], scene.size
    low, high = -over * np.ones(2), size + over
    spans = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], axis=1)
    corners = towards[:, None] + spans[..., :1] * scene.right[:, None] + spans[..., 1:] * scene.down[:, None]
    bounds = _bounds(corners @ axes, intrinsics, height, width)
    seen = (distance < -1e-6) & (bounds[:, 1] > bounds[:, 0]) & (bounds[:, 3] > bounds[:, 2])
    kept = np.flatnonzero(seen)
    inverse_depth = (normal @ axes)[kept] / distance[kept, None]
    affine = []
    for along in (scene.right, scene.down):
        start = -(along * towards).sum(1)[kept, None]
        affine.append(start * inverse_depth + (along @ axes)[kept])
    u, v = affine
    edge, reach = (
        scene.overhang[kept, None] * inverse_depth,
        (size[kept] + over[kept])[..., None] * inverse_depth[:, None],
    )
    level = (
        np.log2(scene.texels_per_metre / (np.sqrt(intrinsics[0] * intrinsics[1]) * -distance[kept])) - SHARPNESS_LEVELS
    )
    return _View(
        rectangles=kept,
        inverse_depth=inverse_depth.astype(np.float32),
        right=u.astype(np.float32),
        down=v.astype(np.float32),
        tests=np.stack([u + edge, v + edge, reach[:, 0] - u, reach[:, 1] - v], axis=1).astype(np.float32),
        bounds=bounds[kept],
        level=level.astype(np.float32),
    )


def _affine(
    coefficients: Float32[np.ndarray, "3"], x: Float32[np.ndarray, "..."], y: Float32[np.ndarray, "..."]
) -> Float32[np.ndarray, "..."]:
    return coefficients[0] * x + (coefficients[1] * y + coefficients[2])


def _hit(
    view: _View,
    number: int,
    x: Float32[np.ndarray, "..."],
    y: Float32[np.ndarray, "..."],
    nearest: Float32[np.ndarray, "..."],
) -> tuple[Float32[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Return the inverse depth at a rectangle's plane and whether it is hit before what is nearest so far."""
    inverse_depth = _affine(view.inverse_depth[number], x, y)
    hit = inverse_depth > nearest
    for test in view.tests[number]:
        hit &= _affine(test, x, y) >= 0
    return inverse_depth, hit


def _cast_grid(
    view: _View, x: Float32[np.ndarray, "1 width"], y: Float32[np.ndarray, "height 1"]
) -> tuple[Float32[np.ndarray, "height width"], Int16[np.ndarray, "height width"]]:
    """Return inverse depth and the visible rectangle's number at every pixel centre."""
    nearest = np.zeros((y.shape[0], x.shape[1]), np.float32)
    number = np.full(nearest.shape, -1, np.int16)
    for candidate, (left, right, top, bottom) in enumerate(view.bounds.tolist()):
        window = (slice(top, bottom), slice(left, right))
        inverse_depth, hit = _hit(view, candidate, x[:, left:right], y[top:bottom], nearest[window])
        np.copyto(nearest[window], inverse_depth, where=hit)
        np.copyto(number[window], np.int16(candidate), where=hit)
    return nearest, number


def _cast_rays(
    view: _View,
    rows: Int64[np.ndarray, " pixels"],
    columns: Int64[np.ndarray, " pixels"],
    x: Float32[np.ndarray, "pixels samples"],
    y: Float32[np.ndarray, "pixels samples"],
) -> tuple[Float32[np.ndarray, "pixels samples"], Int16[np.ndarray, "pixels samples"]]:
    """Return inverse depth and the visible rectangle's number for several rays through each given pixel."""
    nearest = np.zeros(x.shape, np.float32)
    number = np.full(x.shape, -1, np.int16)
    for candidate, (left, right, top, bottom) in enumerate(view.bounds.tolist()):
        chosen = np.flatnonzero((columns >= left) & (columns < right) & (rows >= top) & (rows < bottom))
        if chosen.size:
            best = nearest[chosen]
            inverse_depth, hit = _hit(view, candidate, x[chosen], y[chosen], best)
            nearest[chosen] = np.where(hit, inverse_depth, best)
            number[chosen] = np.where(hit, np.int16(candidate), number[chosen])
    return nearest, number


def _lookup(
    scene: Scene,
    slot: Int64[np.ndarray, " rays"],
    level: Int64[np.ndarray, " rays"],
    u: Float32[np.ndarray, " rays"],
    v: Float32[np.ndarray, " rays"],
) -> Float32[np.ndarray, "3 rays"]:
    """Interpolate one mip level bilinearly; `u`, `v` in texels of the finest level."""
    slot = slot + level
    columns, rows = scene.columns.take(slot), scene.rows.take(slot)
    shrink = np.ldexp(np.float32(1), -level.astype(np.int32))
    x = np.clip(u * shrink - np.float32(0.5), 0, (columns - 1).astype(np.float32))
    y = np.clip(v * shrink - np.float32(0.5), 0, (rows - 1).astype(np.float32))
    column, row = x.astype(np.int64), y.astype(np.int64)
    x -= column
    y -= row
    address = scene.offset.take(slot) + row * columns + column
    step_right = (column + 1 < columns).astype(np.int64)
    below = address + np.where(row + 1 < rows, columns, 0)
    corners = [scene.texels.take(a) for a in (address, address + step_right, below, below + step_right)]
    colours = np.empty((3, len(u)), np.float32)
    for channel in range(3):
        shift = np.uint32(8 * channel)
        a, b, c, d = ((corner >> shift & np.uint32(255)).astype(np.float32) for corner in corners)
        a += (b - a) * x
        c += (d - c) * x
        colours[channel] = a + (c - a) * y
    return colours


def _shade(
    scene: Scene,
    view: _View,
    number: Int16[np.ndarray, " rays"],
    inverse_depth: Float32[np.ndarray, " rays"],
    x: Float32[np.ndarray, " rays"],
    y: Float32[np.ndarray, " rays"],
) -> Float32[np.ndarray, "rays 3"]:
    """Return colours in [0, 255] of hits, interpolated between the two mip levels that match their footprint."""
    colours = np.empty((len(x), 3), np.float32)
    for start in range(0, len(x), SHADED_AT_ONCE):
        block = slice(start, start + SHADED_AT_ONCE)
        n, ray_x, ray_y, depth = number[block], x[block], y[block], 1 / inverse_depth[block]
        texels = [
            (table[:, 0].take(n) * ray_x + table[:, 1].take(n) * ray_y + table[:, 2].take(n))
            * (depth * scene.texels_per_metre)
            for table in (view.right, view.down)
        ]
        # Longest footprint of a pixel on a plane at perpendicular distance D: |ray|^2 depth^2 / (focal D).
        level = view.level.take(n) + np.log2((ray_x * ray_x + ray_y * ray_y + 1) * depth * depth)
        level = np.clip(level, 0, np.float32(scene.levels - 1.001))
        coarse = level.astype(np.int64)
        slot = view.rectangles.take(n) * scene.levels
        sharp, soft = _lookup(scene, slot, coarse, *texels), _lookup(scene, slot, coarse + 1, *texels)
        colours[block] = (sharp + (soft - sharp) * (level - coarse)).T
    return colours


def _outlines(number: Int16[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Mark pixels next to one that sees another rectangle."""
    edge = np.zeros(number.shape, bool)
    across, along = number[:, 1:] != number[:, :-1], number[1:] != number[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= along
    edge[:-1] |= along
    return edge


def render_frame(
    scene: Scene,
    camera_to_world: Float64[np.ndarray, "4 4"],
    intrinsics_pixels: Float64[np.ndarray, "4"],
    height: int,
    width: int,
    supersampling: int,
) -> tuple[UInt8[np.ndarray, "height width 3"], Float32[np.ndarray, "height width"]]:
    """Render colour and depth (metres along the optical axis, at pixel centres).

    Pixels that see two surfaces average `supersampling` squared rays; all others get one ray and a prefiltered texture.
    """
    view = _view(scene, camera_to_world, intrinsics_pixels, height, width)
    focal_x, focal_y, centre_x, centre_y = intrinsics_pixels
    x = ((np.arange(width)[None] + 0.5 - centre_x) / focal_x).astype(np.float32)
    y = ((np.arange(height)[:, None] + 0.5 - centre_y) / focal_y).astype(np.float32)
    nearest, number = _cast_grid(view, x, y)
    assert number.min() >= 0, "a ray left the room: the camera must be inside"
    flat_x, flat_y = np.broadcast_to(x, nearest.shape).reshape(-1), np.broadcast_to(y, nearest.shape).reshape(-1)
    image = _shade(scene, view, number.reshape(-1), nearest.reshape(-1), flat_x, flat_y).reshape(height, width, 3)
    if supersampling > 1:
        rows, columns = np.nonzero(_outlines(number))
        shift = (np.arange(supersampling, dtype=np.float32) + 0.5) / supersampling - 0.5
        shift_y, shift_x = (grid.reshape(-1) for grid in np.meshgrid(shift, shift, indexing="ij"))
        many_x = x[0, columns][:, None] + (shift_x / focal_x).astype(np.float32)
        many_y = y[rows, 0][:, None] + (shift_y / focal_y).astype(np.float32)
        many_nearest, many_number = _cast_rays(view, rows, columns, many_x, many_y)
        rays = (many_number.reshape(-1), many_nearest.reshape(-1), many_x.reshape(-1), many_y.reshape(-1))
        colours = _shade(scene, view, *rays)
        image[rows, columns] = colours.reshape(len(rows), supersampling**2, 3).mean(axis=1)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), 1 / nearest
