"""The epipolar mask (CamI2V, arXiv 2410.15957, section 3.3) as a description: one fundamental matrix per frame pair."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from cami2v.attention.masks import AttentionMask
from cami2v.geometry.epipolar import (
    CHUNK_ELEMENTS,
    CellGrid,
    EpipolarOptions,
    epipolar_lines,
    mask_from_fundamental,
    mask_rows,
    near_any_cell,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpipolarBands(AttentionMask):
    """A query cell sees the cells within a band around its epipolar line in every key frame, and what `options` add.

    Nothing of the size of the mask is held: a backend asks for the rows it is working on, or for the lines.
    """

    fundamental: Float[Tensor, "batch frames frames 3 3"]
    """From query frame (first) to key frame (second)."""
    grid: CellGrid
    options: EpipolarOptions
    condition_frame: Int64[Tensor, " batch"] | None
    """Where set, the keys are this frame's cells only."""
    prepared: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What a backend has built from this description, for all layers, denoising steps and guidance branches."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> EpipolarBands:
        """Return a copy on `device`, with nothing prepared."""
        frame = self.condition_frame
        return dataclasses.replace(
            self,
            fundamental=self.fundamental.to(device, non_blocking=non_blocking),
            condition_frame=None if frame is None else frame.to(device, non_blocking=non_blocking),
            prepared={},
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return batch, queries, keys."""
        keys = self.grid.tokens if self.condition_frame is None else self.grid.cells
        return self.fundamental.shape[0], self.grid.tokens, keys

    def key_frames(self, clip: int) -> Int64[Tensor, " key_frames"]:
        """Return the frames whose cells are one clip's keys."""
        if self.condition_frame is None:
            return torch.arange(self.grid.frames, device=self.fundamental.device)
        return self.condition_frame[clip : clip + 1]

    @torch.no_grad()
    def rows(self, clip: int, queries: Int64[Tensor, " queries"]) -> Bool[Tensor, "queries keys"]:
        """Compute the mask of some queries of one clip."""
        return mask_rows(self.fundamental[clip], queries, self.key_frames(clip), self.grid, self.options)

    @torch.no_grad()
    def lines(self) -> Float32[Tensor, "batch queries key_frames 3"]:
        """Compute the unit-normal lines of all queries, in pixels; NaN where a pair has no parallax."""
        queries = torch.arange(self.grid.tokens, device=self.fundamental.device)
        return torch.stack(
            [
                epipolar_lines(matrices, queries, self.key_frames(clip), self.grid)
                for clip, matrices in enumerate(self.fundamental)
            ]
        )

    @torch.no_grad()
    def open_rows(self) -> Bool[Tensor, "batch queries key_frames"] | None:
        """Tell for which (query, key frame) the hybrid options open the whole frame; None without those options."""
        options = self.options
        if not (options.hybrid or options.hybrid_v2):
            return None
        if "open rows" not in self.prepared:
            self.prepared["open rows"] = self._rows_without_keys(frame_wise=options.hybrid)
        rows: Tensor = self.prepared["open rows"]
        return rows

    @torch.no_grad()
    def dense(self) -> Bool[Tensor, "batch queries keys"]:
        """Write the mask out: (frames height width) squared booleans per clip."""
        grid = self.grid
        mask = mask_from_fundamental(self.fundamental, grid.height, grid.width, grid.downsample, self.options)
        if self.condition_frame is None:
            return mask
        by_frame = mask.unflatten(2, (grid.frames, grid.cells))
        return by_frame[torch.arange(mask.shape[0], device=mask.device), :, self.condition_frame]

    def _rows_without_keys(self, *, frame_wise: bool) -> Bool[Tensor, "batch queries key_frames"]:
        """Tell which rows of the plain rule are empty within a frame, or over all frames of the clip."""
        grid, device = self.grid, self.fundamental.device
        rows_at_once = max(1, CHUNK_ELEMENTS // (grid.frames * max(grid.rows, grid.columns)))
        found = []
        for clip, matrices in enumerate(self.fundamental):
            own = self.key_frames(clip)
            judged = own if frame_wise else torch.arange(grid.frames, device=device)
            for queries in torch.arange(grid.tokens, device=device).split(rows_at_once):
                near = near_any_cell(epipolar_lines(matrices, queries, judged, grid), grid)
                found.append(~near if frame_wise else ~near.any(dim=-1, keepdim=True).expand(-1, len(own)))
        return torch.cat(found).unflatten(0, (self.shape[0], -1)).contiguous()
