"""Blocks of FlexAttention against the mask written out, in the order of tiles."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cami2v.attention import block_occupancy
from cami2v.attention.block_occupancy import occupancy
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.flex import token_order
from tests.cami2v.attention.bands_cases import EVERY_OPTIONS, OPTIONS, POSES, bands


def exact(described: EpipolarBands, registers: int, block: int) -> tuple[Tensor, Tensor]:
    """Look at every pair; a block that is not filled is never whole."""
    queries, keys = token_order(described, registers)
    allowed = functional.pad(described.dense(), (registers, 0), value=True)
    allowed = allowed.index_select(1, queries.places).index_select(2, keys.places)
    missing = (0, -allowed.shape[2] % block, 0, -allowed.shape[1] % block)
    blocks = functional.pad(allowed, missing).unflatten(2, (-1, block)).unflatten(1, (-1, block))
    return blocks.any(dim=4).any(dim=2), blocks.all(dim=4).all(dim=2)


def found(described: EpipolarBands, registers: int, block: int) -> tuple[Tensor, Tensor]:
    return occupancy(described, token_order(described, registers)[0], registers, block)


@pytest.mark.parametrize("poses", POSES)
@pytest.mark.parametrize(("registers", "condition_frame"), [(3, False), (0, False), (0, True), (70, True)])
@pytest.mark.parametrize(("rows", "columns"), [(16, 8), (8, 24)])
def test_whole_tiles_are_judged_exactly(
    poses: str, registers: int, condition_frame: bool, rows: int, columns: int
) -> None:
    for options in OPTIONS:
        described = bands(poses, options=options, condition_frame=condition_frame, rows=rows, columns=columns)
        for ours, theirs in zip(found(described, registers, 64), exact(described, registers, 64), strict=True):
            assert torch.equal(ours, theirs), options


@given(seed=st.integers(0, 2**20), perturbed=st.booleans(), rows=st.integers(1, 20), columns=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_no_visible_pair_is_left_out_and_no_hidden_one_let_in(
    seed: int, perturbed: bool, rows: int, columns: int
) -> None:
    """Tiles that are cut off, blocks over two frames: some blocks more may be tested key by key, no more."""
    options = EVERY_OPTIONS[seed % len(EVERY_OPTIONS)]
    described = bands("random", options=options, perturbed=perturbed, rows=rows, columns=columns, seed=seed)
    registers, block = seed % 5, (16, 64)[seed % 2]
    (some, every), (some_exactly, every_exactly) = (f(described, registers, block) for f in (found, exact))
    assert not (some_exactly & ~some).any()
    assert not (every & ~every_exactly).any()


def test_queries_may_be_taken_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    described = bands("random", options=OPTIONS[1], rows=13, columns=11)
    expected = found(described, 4, 16)
    monkeypatch.setattr(block_occupancy, "CHUNK_ELEMENTS", 1)
    for ours, theirs in zip(found(described, 4, 16), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (320, 512)])
def test_sizes_in_use_are_whole_tiles_on_the_levels_that_matter(height: int, width: int) -> None:
    described = bands("random", batch=1, perturbed=True, rows=height // 8, columns=width // 8)
    grid = dataclasses.replace(described.grid, frames=16)
    boxes = block_occupancy.key_boxes(grid, 16, grid.tokens + 4, 64, torch.device("cpu"))
    assert len(boxes.block) == grid.tokens // 64
    assert torch.equal(boxes.reach, torch.full_like(boxes.reach, 28.0))
