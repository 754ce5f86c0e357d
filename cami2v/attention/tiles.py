"""Tokens in another order: tile by tile, so that neighbours in a list are neighbours in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cami2v.geometry.epipolar import CellGrid

TILE_SIDE = 8
"""Cells along each side of a tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A permutation and its inverse."""

    places: Int64[Tensor, " tokens"]
    """Which token comes at each place."""
    ranks: Int64[Tensor, " tokens"]
    """At which place each token comes."""

    @classmethod
    def of(cls, places: Int64[Tensor, " tokens"]) -> Order:
        """Add the inverse."""
        return cls(places=places, ranks=places.argsort())

    def inverse(self) -> Order:
        """Return the order that undoes this one."""
        return Order(places=self.ranks, ranks=self.places)


def tile_order(grid: CellGrid, device: torch.device | str = "cpu") -> Int64[Tensor, " cells"]:
    """List a frame's cells tile by tile; tiles at the right and lower edge may be smaller."""
    row, column = torch.meshgrid(
        torch.arange(grid.rows, device=device), torch.arange(grid.columns, device=device), indexing="ij"
    )
    tile = row // TILE_SIDE * grid.columns + column // TILE_SIDE
    within = row % TILE_SIDE * TILE_SIDE + column % TILE_SIDE
    return (tile * TILE_SIDE**2 + within).flatten().argsort()


def permuted(
    tensor: Float[Tensor, "batch heads tokens width"], order: Order
) -> Float[Tensor, "batch heads tokens width"]:
    """Bring tokens into another order."""
    result: Tensor = _Permuted.apply(tensor, order.places, order.ranks)
    return result


class _Permuted(torch.autograd.Function):
    """Both passes read: the gradient of plain indexing would add, one token after the other."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Tensor, ranks: Tensor) -> Tensor:
        ctx.save_for_backward(places, ranks)
        return tensor.index_select(2, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        places, ranks = ctx.saved_tensors
        result: Tensor = _Permuted.apply(gradient, ranks, places)
        return result, None, None
