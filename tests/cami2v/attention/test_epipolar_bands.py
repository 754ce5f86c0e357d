"""Described bands against the same mask written out: outputs, gradients, memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cami2v.attention import bundles, flex, sdpa
from cami2v.attention.core import attend
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask, DenseMask
from cami2v.geometry.epipolar import CellGrid, EpipolarOptions
from tests.cami2v.attention.bands_cases import EVERY_OPTIONS, OPTIONS, POSES, bands, tokens


def run(mask: AttentionMask, inputs: tuple[Tensor, ...], registers: int) -> tuple[Tensor, ...]:
    """Return the output and the gradients of query, key and value."""
    query, key, value = (x.clone().requires_grad_() for x in inputs)
    output = attend(query, key, value, num_heads=2, mask=mask, always_visible=registers)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).to(output.dtype)
    return (output.detach(), *torch.autograd.grad((output * weight).sum(), (query, key, value)))


def written_out(described: EpipolarBands) -> DenseMask:
    return DenseMask(allowed=described.dense())


def assert_equal(described: EpipolarBands, registers: int) -> None:
    inputs = tokens(described, registers=registers)
    expected = run(written_out(described), inputs, registers)
    for ours, theirs in zip(run(described, inputs, registers), expected, strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take small clips in bundles, as large ones are, and in more than one; some are not full."""
    monkeypatch.setattr(sdpa, "SMALL_CLIP", 0)
    monkeypatch.setattr(bundles, "BUNDLE", 4)
    monkeypatch.setattr(bundles, "BUNDLES_AT_ONCE", 2)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("poses", POSES)
@pytest.mark.parametrize(("registers", "condition_frame"), [(3, False), (0, False), (0, True)])
def test_bands_equal_the_dense_mask(poses: str, registers: int, condition_frame: bool) -> None:
    for options in OPTIONS:
        described = bands(poses, options=options, condition_frame=condition_frame, rows=3, columns=3)
        assert_equal(described, registers)


@pytest.mark.usefixtures("bundled")
@given(seed=st.integers(0, 2**20), perturbed=st.booleans(), rows=st.integers(1, 6), columns=st.integers(1, 7))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bands_equal_the_dense_mask_for_random_poses(seed: int, perturbed: bool, rows: int, columns: int) -> None:
    options = EVERY_OPTIONS[seed % len(EVERY_OPTIONS)]
    described = bands("random", options=options, perturbed=perturbed, rows=rows, columns=columns, seed=seed)
    assert_equal(described, registers=seed % 3)


def test_the_cases_are_what_their_names_say() -> None:
    assert not bands("standing still").dense().any()
    assert not bands("pure rotation").dense().any()
    assert bands("pure rotation", perturbed=True).dense().any()
    random = bands("random", rows=8, columns=8).dense()
    assert 0.05 < random.double().mean() < 0.6
    empty_rows = bands("forward", condition_frame=True).dense()
    assert not empty_rows.any(dim=-1).all()
    assert empty_rows.any()


@pytest.mark.usefixtures("bundled")
def test_a_row_without_keys_gives_zero_and_no_gradient() -> None:
    described = bands("forward", condition_frame=True)
    inputs = tokens(described, registers=0)
    output, query_gradient, _, _ = run(described, inputs, 0)
    empty = ~described.dense().any(dim=-1)
    assert empty.any()
    assert (output[empty] == 0).all()
    assert (query_gradient[empty] == 0).all()
    assert (output[~empty] != 0).all()


@pytest.mark.usefixtures("bundled")
def test_gradcheck() -> None:
    described = bands("random", batch=1, rows=2, columns=2)
    query, key, value = (x.requires_grad_() for x in tokens(described, registers=1, width=4))

    def run_bands(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value, num_heads=2, mask=described, always_visible=1)

    assert torch.autograd.gradcheck(run_bands, (query, key, value), fast_mode=True)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision(dtype: torch.dtype, autocast: bool) -> None:
    described = bands("random", rows=6, columns=6)
    exact = tokens(described, registers=2)
    expected = run(described, exact, 2)
    inputs = tuple(x.to(torch.float32 if autocast else dtype) for x in exact)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = run(described, inputs, 2)
    assert actual[0].dtype == dtype
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.double() - theirs).norm() < 0.01 * theirs.norm()


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@pytest.mark.usefixtures("bundled")
def test_no_tensor_grows_with_the_square_of_the_tokens() -> None:
    sizes = {}
    for side in (8, 16):
        described = bands("random", batch=1, rows=side, columns=side)
        inputs = tokens(described, registers=4)
        for name, mask in (("bands", described), ("dense", written_out(described))):
            with LargestTensor() as largest:
                run(mask, inputs, 4)
            sizes[name, side] = largest.elements
    assert sizes["dense", 16] > 14 * sizes["dense", 8]
    assert sizes["bands", 16] <= 4 * sizes["bands", 8]


@pytest.mark.parametrize("poses", ["random", "standing still"])
@pytest.mark.parametrize(("registers", "condition_frame"), [(3, False), (0, True)])
def test_flex_equals_the_dense_mask(poses: str, registers: int, condition_frame: bool) -> None:
    for options in OPTIONS:
        described = bands(poses, options=options, condition_frame=condition_frame, rows=7, columns=9)
        query, key, value = tokens(described, registers=registers)
        expected = attend(query, key, value, num_heads=2, mask=written_out(described), always_visible=registers)
        actual = attend(query, key, value, num_heads=2, mask=described, always_visible=registers, backend="flex")
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_a_frame_pair_meets_little_more_than_its_band() -> None:
    described = bands("random", batch=1, perturbed=True, rows=32, columns=32)
    found = [some for frames in bundles.bundles_of(described)[0] for pair in frames for some in pair]
    multiplied = sum(some.queries.shape[1] * some.keys.numel() for some in found)
    visible = int(described.dense().sum())
    assert visible < multiplied < 2.5 * visible
    assert multiplied < 0.1 * described.grid.tokens**2


@pytest.mark.parametrize("poses", ["random", "forward"])
def test_bands_of_a_real_frame_size_equal_the_dense_mask(poses: str) -> None:
    described = bands(poses, batch=1, perturbed=poses == "random", rows=32, columns=32)
    assert_equal(described, registers=4)


def test_lines_of_a_pencil_are_ordered_also_where_they_are_parallel() -> None:
    sideways = torch.tensor(
        [[0.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64
    )  # a shift along x: lines are rows
    grid = CellGrid(frames=1, height=32, width=48, downsample=8)
    places = bundles.pencil_positions(sideways, grid).view(4, 6)
    torch.testing.assert_close(places, places[:, :1].expand(4, 6))
    assert len(places[:, 0].unique()) == 4


def test_flex_leaves_out_blocks_without_a_visible_pair() -> None:
    described = bands("forward", rows=16, columns=8)
    blocks = flex.block_mask(described, 0)
    tiles = described.dense().unflatten(2, (6, 64)).unflatten(1, (6, 64))  # 8 columns: a tile is 8 whole rows
    assert torch.equal(blocks.to_dense()[:, 0].bool(), tiles.any(dim=4).any(dim=2))
    assert not blocks.to_dense()[:, 0].unflatten(2, (3, 2)).unflatten(1, (3, 2)).diagonal(dim1=1, dim2=3).any(), (
        "without the perturbation no frame sees itself"
    )


def test_tiles_leave_fewer_blocks_than_rows() -> None:
    described = bands("random", batch=1, perturbed=True, rows=32, columns=32)
    of_tiles = flex.block_mask(described, 0).to_dense().float().mean()
    of_rows = described.dense().unflatten(2, (-1, 64)).unflatten(1, (-1, 64)).any(dim=4).any(dim=2).float().mean()
    assert of_tiles < 0.8 * of_rows


def test_block_lists_are_built_once_and_do_not_travel() -> None:
    described = bands("random")
    blocks = flex.block_mask(described, 2)
    assert flex.block_mask(described, 2) is blocks
    assert flex.block_mask(described, 0) is not blocks
    assert described.to("cpu").prepared == {}


def test_bands_under_flex_share_their_blocks_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    described = bands("random")
    query, key, value = tokens(described, registers=0)
    built = []
    original = flex.mask_function

    def counting(described: EpipolarBands, always_visible: int) -> flex.MaskFunction:
        built.append(always_visible)
        return original(described, always_visible)

    monkeypatch.setattr(flex, "mask_function", counting)
    for _ in range(3):
        attend(query, key, value, num_heads=2, mask=described, backend="flex")
    assert built == [0]


@pytest.mark.usefixtures("bundled")
def test_activation_checkpointing_and_no_grad_give_the_same() -> None:
    described = bands("random")
    inputs = tokens(described, registers=2)
    expected = run(described, inputs, 2)
    query, key, value = (x.clone().requires_grad_() for x in inputs)

    def layer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value, num_heads=2, mask=described, always_visible=2)

    output = torch.utils.checkpoint.checkpoint(layer, query, key, value, use_reentrant=False)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).double()
    gradients = torch.autograd.grad((output * weight).sum(), (query, key, value))
    for ours, theirs in zip((output, *gradients), expected, strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        assert torch.equal(layer(query, key, value), expected[0])


def test_a_small_clip_has_its_mask_written_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    described = bands("random")
    assert_equal(described, registers=1)
    kept = described.prepared["sdpa"]
    assert_equal(described, registers=0)
    assert described.prepared["sdpa"] is kept
    monkeypatch.setattr(sdpa, "SMALL_CLIP", 60 * 60 - 1)
    larger = bands("random")
    assert_equal(larger, registers=0)
    assert "sdpa" not in larger.prepared


def test_a_mask_of_another_size_is_refused() -> None:
    described = bands("random")
    query, key, value = tokens(described, registers=0)
    with pytest.raises(ValueError, match="same clips and size"):
        attend(query, key, value, num_heads=2, mask=described, always_visible=1)


def test_hybrid_v2_judges_all_frames_where_the_keys_are_one() -> None:
    options = EpipolarOptions(hybrid_v2=True)
    described = bands("forward", options=options, condition_frame=True)
    everything = dataclasses.replace(described, condition_frame=None, prepared={}).dense().unflatten(2, (3, 20))
    expected = torch.stack([clip[:, frame] for clip, frame in zip(everything, [1, 2], strict=True)])
    assert torch.equal(described.dense(), expected)
    assert torch.equal(torch.stack([described.rows(clip, torch.arange(60)) for clip in range(2)]), expected)
