from __future__ import annotations

import pytest
import torch

from cami2v.attention.tiles import Order, permuted, tile_order
from cami2v.geometry.epipolar import CellGrid


@pytest.mark.parametrize(("rows", "columns"), [(16, 24), (20, 32), (5, 8), (13, 11)])
def test_tiles_hold_neighbours_and_every_cell_once(rows: int, columns: int) -> None:
    order = tile_order(CellGrid(frames=1, height=8 * rows, width=8 * columns, downsample=8))
    assert torch.equal(order.sort().values, torch.arange(rows * columns))
    first = order[: min(rows, 8) * min(columns, 8)]
    assert int((first // columns).max()) == min(rows, 8) - 1
    assert int((first % columns).max()) == min(columns, 8) - 1


def test_a_permutation_is_undone_exactly_and_so_is_its_gradient() -> None:
    order = Order.of(torch.randperm(10, generator=torch.Generator().manual_seed(0)))
    tokens = torch.randn(2, 3, 10, 4, dtype=torch.float64, requires_grad=True)
    moved = permuted(tokens, order)
    assert torch.equal(moved[:, :, 0], tokens[:, :, order.places[0]])
    assert torch.equal(permuted(moved, order.inverse()), tokens)
    weight = torch.randn_like(tokens)
    (gradient,) = torch.autograd.grad((moved * weight).sum(), tokens)
    assert torch.equal(gradient, weight[:, :, order.ranks])
    assert torch.autograd.gradcheck(lambda x: permuted(x, order), tokens, fast_mode=True)
