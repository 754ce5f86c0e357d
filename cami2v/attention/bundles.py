"""Bundles of neighbouring epipolar lines: which cells of a frame have to meet which cells of another one.

The lines of a frame's cells in another frame form a pencil through the epipole. Cells whose lines are neighbours in the
pencil see nearly the same keys, so a bundle of them needs little more than one of them does: 32 cells at 256x256 meet
6 % of a frame, while 8x8 neighbouring cells meet 26 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int32, Int64
from torch import Tensor

from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.geometry.epipolar import CellGrid, epipolar_lines

BUNDLE = 32
"""Queries of a bundle."""

BUNDLES_AT_ONCE = 4
"""Bundles that are worked on together, filled up to the keys of the largest of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundles:
    """Cells of the query frame and the cells of the key frame that at least one of each bundle sees.

    The number of a frame's cells stands where a bundle has fewer.
    """

    queries: Int32[Tensor, "bundles bundle"]
    keys: Int32[Tensor, "bundles keys"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePair:
    """Who sees whom between the cells of one frame and those of another: `mask_rows` for chosen cells."""

    lines: Float[Tensor, "queries_and_nobody 3"]
    """NaN for nobody, who stands where a bundle has fewer."""
    open_rows: Bool[Tensor, " queries"] | None
    """Queries that see the whole frame."""
    same_frame: bool
    bands: EpipolarBands

    @classmethod
    def of(cls, bands: EpipolarBands, clip: int, query_frame: int, slot: int) -> FramePair:
        """Take the pair of a query frame and one of the clip's key frames."""
        grid = bands.grid
        cells = torch.arange(grid.cells, device=bands.fundamental.device)
        key_frames = bands.key_frames(clip)[slot : slot + 1]
        lines = epipolar_lines(bands.fundamental[clip], query_frame * grid.cells + cells, key_frames, grid)[:, 0]
        rows = bands.open_rows()
        mine = slice(query_frame * grid.cells, (query_frame + 1) * grid.cells)
        return cls(
            lines=torch.cat([lines, lines.new_full((1, 3), float("nan"))]),
            open_rows=None if rows is None else rows[clip, mine, slot],
            same_frame=bool(key_frames == query_frame),
            bands=bands,
        )

    def sees(
        self, queries: Int32[Tensor, "bundles bundle"], keys: Int32[Tensor, "#bundles keys"]
    ) -> Bool[Tensor, "bundles bundle keys"]:
        """Tell for every query of a bundle which of the bundle's keys it may attend to."""
        grid, options = self.bands.grid, self.bands.options
        # The arithmetic of the mask that is written out, term by term, so that both agree to the last bit.
        a, b, c = self.lines[queries][..., None, :].unbind(-1)
        x, y = (grid.centres(each).float()[:, None] for each in (keys % grid.columns, keys // grid.columns))
        seen = (a * x).add_((b * y).add_(c)).abs_() < grid.half_width
        if self.open_rows is not None:
            seen |= self.open_rows[queries.clamp_max(grid.cells - 1)][..., None]
        if self.same_frame and options.only_self_pixel_on_current_frame:
            seen = queries[..., None] == keys[:, None]
        if self.same_frame and options.current_frame_as_register_token:
            seen = torch.ones_like(seen)
        nobody = (queries == grid.cells)[..., None] | (keys == grid.cells)[:, None]
        return seen.masked_fill_(nobody, value=False)


@torch.no_grad()
def bundles_of(bands: EpipolarBands) -> list[list[list[list[Bundles]]]]:
    """Return the bundles by clip, query frame and place of the key frame; built once for these bands."""
    if "bundles" not in bands.prepared:
        key_frames = len(bands.key_frames(0))
        bands.prepared["bundles"] = [
            [
                _together(
                    [
                        bundles_of_pair(FramePair.of(bands, clip, frame, slot), order)
                        for slot, order in enumerate(orders)
                    ]
                )
                for frame, orders in enumerate(_orders(bands, clip, key_frames))
            ]
            for clip in range(bands.shape[0])
        ]
    prepared: list[list[list[list[Bundles]]]] = bands.prepared["bundles"]
    return prepared


def _orders(bands: EpipolarBands, clip: int, key_frames: int) -> Int64[Tensor, "frames key_frames cells"]:
    matrices = bands.fundamental[clip].index_select(1, bands.key_frames(clip)).double()
    return pencil_positions(matrices, bands.grid).argsort(dim=-1)


def pencil_positions(fundamental: Float64[Tensor, "*pairs 3 3"], grid: CellGrid) -> Float64[Tensor, "*pairs cells"]:
    """Return where the line of each cell lies in the pencil of its pair of frames, as an angle in [0, pi).

    All lines of a pair are orthogonal to the epipole, also where it is far away and they are parallel: the angle is
    taken in the plane of lines.
    """
    cells = torch.arange(grid.cells, device=fundamental.device)
    x, y = grid.centres(cells % grid.columns), grid.centres(cells // grid.columns)
    points = torch.stack([x, y, torch.ones_like(x)])
    # Not from a singular value decomposition: on CUDA the host would wait for it.
    columns = fundamental.mT
    first = _longest(columns)
    basis = torch.stack([first, torch.linalg.cross(epipoles(fundamental), first)], dim=-2)
    along = basis @ (fundamental @ points)
    return torch.atan2(along[..., 1, :], along[..., 0, :]) % torch.pi


def epipoles(fundamental: Float64[Tensor, "*pairs 3 3"]) -> Float64[Tensor, "*pairs 3"]:
    """Return where all lines of a pair meet, homogeneous and of unit length; zeros for a pair without parallax."""
    columns = fundamental.mT
    return _longest(torch.linalg.cross(columns, columns.roll(1, dims=-2)))


def _longest(vectors: Float64[Tensor, "*pairs 3 3"]) -> Float64[Tensor, "*pairs 3"]:
    """Return the longest of three vectors with unit length; zeros where all are zero."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    length, which = lengths.max(dim=-1, keepdim=True)
    longest = vectors.gather(-2, which[..., None].expand(*which.shape, 3)).squeeze(-2)
    return longest / length.clamp_min(torch.finfo(vectors.dtype).tiny)


def _together(found: list[list[Bundles]]) -> list[list[Bundles]]:
    """Move what is kept into one piece of memory: many small ones would pin the heap that the search has used."""
    parts = [part for pair in found for some in pair for part in (some.queries, some.keys)]
    if not parts:
        return found
    moved = torch.cat([part.flatten() for part in parts]).split([part.numel() for part in parts])
    views = iter([new.view_as(part) for new, part in zip(moved, parts, strict=True)])
    return [[Bundles(queries=next(views), keys=next(views)) for _ in pair] for pair in found]


def bundles_of_pair(pair: FramePair, order: Int64[Tensor, " cells"]) -> list[Bundles]:
    """Return the bundles of a pair of frames, its query cells taken in `order`."""
    cells = pair.bands.grid.cells
    missing = -cells % BUNDLE
    nobody = order.new_full((missing,), cells)
    queries = torch.cat([order, nobody]).int().view(-1, BUNDLE)
    keys = torch.arange(cells, dtype=torch.int32, device=order.device)[None]
    found = []
    # Neighbours in the pencil meet about as many keys: little is filled up.
    for some in queries.split(BUNDLES_AT_ONCE):
        met = pair.sees(some, keys).any(dim=1)
        counts = met.sum(dim=1)
        most = int(counts.max())
        if most:
            seen_first = met.int().argsort(dim=1, descending=True, stable=True)[:, :most].int()
            nobody_there = torch.arange(most, device=order.device) >= counts[:, None]
            found.append(Bundles(queries=some, keys=seen_first.masked_fill_(nobody_there, cells)))
    return found
