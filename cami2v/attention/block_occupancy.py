"""Which blocks of FlexAttention hold visible pairs, found by whole boxes of keys in place of single keys.

A block of keys is one or a few boxes of cells, each in one frame. How near a line comes to a box, and how far from it
the box reaches, is known from its middle and its sides: 64 keys take one test. No loop over frames, and nothing that a
device would be waited for.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional

from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.tiles import Order, tile_order
from cami2v.geometry.epipolar import CHUNK_ELEMENTS, CellGrid

ROUNDING_PIXELS = 1e-3
"""A box this near to the edge of a band is tested key by key: float32 may round either way."""

Occupancy = tuple[Bool[Tensor, "batch query_blocks key_blocks"], Bool[Tensor, "batch query_blocks key_blocks"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBoxes:
    """The boxes of cells that blocks of keys consist of: places of one block in one frame."""

    block: Int64[Tensor, " boxes"]
    slot: Int64[Tensor, " boxes"]
    """Which of the key frames."""
    first: Int64[Tensor, " boxes"]
    """Place of its first cell within the frame, in the order of tiles."""
    stop: Int64[Tensor, " boxes"]
    middle: Float32[Tensor, "2 boxes"]
    """x and y, in pixels, of the rectangle around the cells' centres."""
    reach: Float32[Tensor, "2 boxes"]
    """Half of its sides."""
    of_block: Int64[Tensor, " key_blocks"]
    """Boxes of each block; registers are in none."""


@functools.lru_cache(maxsize=64)
def key_boxes(grid: CellGrid, slots: int, keys: int, block: int, device: torch.device) -> KeyBoxes:
    """Cut the cells of `slots` frames, one after the other in the order of tiles, into blocks; kept for later calls."""
    order = tile_order(grid)
    centres = torch.stack([grid.centres(order % grid.columns), grid.centres(order // grid.columns)])
    found: list[tuple[int, int, int, int]] = []
    for slot in range(slots):
        start = 0
        while start < grid.cells:
            number = (slot * grid.cells + start) // block
            stop = min(grid.cells, (number + 1) * block - slot * grid.cells)
            found.append((number, slot, start, stop))
            start = stop
    low = torch.stack([centres[:, start:stop].amin(dim=1) for *_, start, stop in found], dim=1)
    high = torch.stack([centres[:, start:stop].amax(dim=1) for *_, start, stop in found], dim=1)
    blocks, slot_of, first, last = torch.tensor(found).unbind(dim=1)
    return KeyBoxes(
        block=blocks.to(device),
        slot=slot_of.to(device),
        first=first.to(device),
        stop=last.to(device),
        middle=((low + high) / 2).float().to(device),
        reach=((high - low) / 2).float().to(device),
        of_block=blocks.bincount(minlength=-(-keys // block)).to(device),
    )


def occupancy(bands: EpipolarBands, queries: Order, always_visible: int, block: int) -> Occupancy:
    """Tell of every block whether any and whether all of its pairs may attend.

    Keys are those of the frames in the order of tiles, then `always_visible` others. A block at the edge of a band may
    be told to have some where it has none, and not all where it has.
    """
    batch, count, cells_seen = bands.shape
    keys = cells_seen + always_visible
    slots = cells_seen // bands.grid.cells
    boxes = key_boxes(bands.grid, slots, keys, block, bands.fundamental.device)
    key_frames = torch.stack([bands.key_frames(clip) for clip in range(batch)])
    lines, open_rows = bands.lines(), bands.open_rows()
    some, every = [], []
    rows_at_once = max(1, CHUNK_ELEMENTS // (batch * len(boxes.block) * block)) * block
    for rows in queries.places.split(rows_at_once):
        met, covered = _boxes_of_rows(bands, rows, lines, open_rows, key_frames, boxes)
        missing = -len(rows) % block
        met, covered = (functional.pad(each, (0, 0, 0, missing)).unflatten(1, (-1, block)) for each in (met, covered))
        some.append(met.any(dim=2))
        every.append(covered.all(dim=2))
    blocks = len(boxes.of_block)
    met_boxes, covered_boxes = (
        torch.zeros(batch, -(-count // block), blocks, dtype=torch.int32, device=lines.device).index_add_(
            2, boxes.block, torch.cat(each, dim=1).int()
        )
        for each in (some, every)
    )
    in_registers = torch.arange(1, blocks + 1, device=lines.device) * block > cells_seen
    # FlexAttention asks for no test in a full block, not even whether a key exists.
    filled = torch.arange(1, blocks + 1, device=lines.device) * block <= keys
    any_met = (met_boxes > 0) | (in_registers if always_visible else False)
    all_met = (covered_boxes == boxes.of_block) & filled
    if count % block:
        all_met[:, -1] = False
    return any_met, all_met


def _boxes_of_rows(
    bands: EpipolarBands,
    rows: Int64[Tensor, " rows"],
    lines: Float32[Tensor, "batch queries slots 3"],
    open_rows: Bool[Tensor, "batch queries slots"] | None,
    key_frames: Int64[Tensor, "batch slots"],
    boxes: KeyBoxes,
) -> tuple[Bool[Tensor, "batch rows boxes"], Bool[Tensor, "batch rows boxes"]]:
    """Tell which boxes queries see some of, and which they see whole; the rules of `mask_rows`, one after the other."""
    grid, options = bands.grid, bands.options
    a, b, c = lines.index_select(1, rows).index_select(2, boxes.slot).unbind(dim=-1)
    distance = (a * boxes.middle[0] + b * boxes.middle[1] + c).abs()
    reach = a.abs() * boxes.reach[0] + b.abs() * boxes.reach[1]
    some = distance - reach < grid.half_width + ROUNDING_PIXELS
    every = distance + reach < grid.half_width - ROUNDING_PIXELS
    if open_rows is not None:
        everything = open_rows.index_select(1, rows).index_select(2, boxes.slot)
        some, every = some | everything, every | everything
    same_frame = (rows // grid.cells)[:, None] == key_frames.index_select(1, boxes.slot)[:, None]
    if options.only_self_pixel_on_current_frame:
        place = tile_order(grid, rows.device).argsort()[rows % grid.cells][:, None]
        itself = (place >= boxes.first) & (place < boxes.stop)
        some, every = torch.where(same_frame, itself, some), every & ~same_frame
    if options.current_frame_as_register_token:
        some, every = some | same_frame, every | same_frame
    return some, every
