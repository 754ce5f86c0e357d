"""Our kernels in Triton against the mask written out, by Triton's interpreter: `test_triton` runs this file.

The interpreter has to be chosen before the kernels are imported (TRITON_INTERPRET=1), hence in a process of its own.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from cami2v.attention import device_bundles
from cami2v.attention.bundles import BUNDLE, FramePair, bundles_of_pair
from cami2v.attention.choice import Backend
from cami2v.attention.core import attend, prepare
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask, DenseMask
from cami2v.attention.triton_operators import attend_bundles
from cami2v.geometry.epipolar import EpipolarOptions
from tests.cami2v.attention.bands_cases import OPTIONS, POSES, bands, tokens
from tests.contracts.test_host_synchronisation import Waits

assert os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")

LISTED = {"all listed": (1.0, 1.0), "some listed": (0.3, 0.6), "nothing listed": (0.0, 0.0)}


def run(mask: AttentionMask, inputs: tuple[Tensor, ...], registers: int, heads: int = 2) -> tuple[Tensor, ...]:
    """Return the output and the gradients of query, key and value."""
    query, key, value = (x.clone().requires_grad_() for x in inputs)
    backend: Backend = "triton" if isinstance(mask, EpipolarBands) else "sdpa"
    output = attend(query, key, value, num_heads=heads, mask=mask, always_visible=registers, backend=backend)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).to(output.dtype)
    return (output.detach(), *torch.autograd.grad((output * weight).sum(), (query, key, value)))


def assert_equal(described: EpipolarBands, registers: int, *, heads: int = 2, value_width: int | None = None) -> None:
    query, key, value = (x.float() for x in tokens(described, registers=registers))
    value = value[..., :value_width]
    expected = run(DenseMask(allowed=described.dense()), (query, key, value), registers, heads)
    for ours, theirs in zip(run(described, (query, key, value), registers, heads), expected, strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.fixture(params=LISTED)
def listed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In so small a frame most bundles would meet more than is listed."""
    keys, queries = LISTED[request.param]
    monkeypatch.setattr(device_bundles, "LISTED_KEYS", keys)
    monkeypatch.setattr(device_bundles, "LISTED_QUERIES", queries)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("poses", ["random", "forward"])
def test_both_passes_equal_the_dense_mask(poses: str) -> None:
    described = bands(poses, rows=5, columns=7, batch=1, perturbed=poses == "random")
    assert_equal(described, registers=3, heads=1 + (poses == "random"))


@pytest.mark.parametrize("poses", POSES)
@pytest.mark.parametrize("registers", [0, 1])
def test_degenerate_poses_and_one_key_frame(poses: str, registers: int) -> None:
    assert_equal(bands(poses, rows=3, columns=3, condition_frame=True), registers, heads=1)


@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_every_option(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_bundles, "LISTED_KEYS", 1.0)
    options = OPTIONS[number]
    assert_equal(bands("one frame standing", options=options, rows=4, columns=4, batch=1), registers=2, heads=1)
    assert_equal(bands("random", options=options, rows=4, columns=4, condition_frame=True), registers=0, heads=1)


def test_several_clips_many_registers_and_widths_of_their_own() -> None:
    assert_equal(bands("random", rows=2, columns=5), registers=40, value_width=6)


def test_half_precision() -> None:
    dtype = torch.float16  # of bfloat16 Triton 3.9's interpreter multiplies the bits
    described = bands("random", rows=3, columns=5, batch=1)
    exact = tokens(described, registers=2)
    expected = run(DenseMask(allowed=described.dense()), exact, 2)
    for ours, theirs in zip(run(described, tuple(x.to(dtype) for x in exact), 2), expected, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).norm() < 0.01 * theirs.norm()


def test_a_row_without_keys_gives_zero_and_no_gradient() -> None:
    described = bands("forward", condition_frame=True)
    inputs = tuple(x.float() for x in tokens(described, registers=0))
    output, query_gradient, _, _ = run(described, inputs, 0)
    empty = ~described.dense().any(dim=-1)
    assert empty.any()
    assert (output[empty] == 0).all()
    assert (query_gradient[empty] == 0).all()
    assert (output[~empty] != 0).all()


def test_what_is_multiplied_is_what_the_bundles_of_the_cpu_are() -> None:
    described = bands("random", batch=1, rows=16, columns=12, perturbed=True)
    met = device_bundles.met_by_queries(described, device_bundles.pair_lines(described))
    for frame in range(3):
        for slot in range(3):
            order = met.order[0, frame, slot].long()[: described.grid.cells]
            pair = FramePair.of(described, 0, frame, slot)
            by_bundle = (keys for some in bundles_of_pair(pair, order) for keys in some.keys)
            expected = [keys[keys < described.grid.cells].tolist() for keys in by_bundle]
            found = zip(met.lists[0, frame, slot], met.counts[0, frame, slot].tolist(), strict=True)
            listed = [(count, keys[:count].tolist()) for keys, count in found if count]
            capacity = met.lists.shape[-1]
            assert listed == [(len(keys), keys[:capacity]) for keys in expected if keys]


@pytest.mark.parametrize("options", [EpipolarOptions(), EpipolarOptions(only_self_pixel_on_current_frame=True)])
def test_keys_list_the_queries_that_see_them(options: EpipolarOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_bundles, "LISTED_QUERIES", 1.0)
    described = bands("forward", batch=1, rows=9, columns=8, options=options)
    met = device_bundles.met_by_keys(described, device_bundles.pair_lines(described))
    seen = described.dense()[0].unflatten(1, (3, 72)).unflatten(0, (3, 72))
    for frame in range(3):
        for slot in range(3):
            for number, keys in enumerate(met.order[0, frame, slot].long().split(BUNDLE)):
                expected = seen[frame, :, slot, keys[keys < 72]].any(dim=1).nonzero()[:, 0]
                count = int(met.counts[0, frame, slot, number])
                assert torch.equal(met.lists[0, frame, slot, number, :count].long(), expected)


def test_keys_around_an_epipole_are_bundled_apart() -> None:
    described = bands("forward", batch=1, rows=16, columns=16)
    rings = device_bundles.rings(described.fundamental[0, 0, 1:], described.grid).view(2, 16, 16)
    assert (rings[:, 7:9, 7:9] == 3).all()
    assert (rings[:, 0, 0] == 1).all()
    assert (device_bundles.rings(described.fundamental[0, 0, :1], described.grid) == 0).all()


def test_lists_are_built_once_without_waiting_and_those_of_keys_where_gradients_are_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described = bands("random", rows=3, columns=3, options=EpipolarOptions(hybrid=True))
    with Waits(monkeypatch) as waits:
        with torch.no_grad():
            prepare(described, always_visible=4, backend="triton")
        assert "triton, backward" not in described.prepared
        forward = described.prepared["triton"]
        prepare(described, always_visible=4, backend="triton")
    assert waits.seen == []
    assert described.prepared["triton"] is forward
    assert "triton, backward" in described.prepared


def test_checkpointing_gives_the_same() -> None:
    described = bands("random", rows=2, columns=3, batch=1)
    inputs = tuple(x.float() for x in tokens(described, registers=2))
    expected = run(described, inputs, 2)
    query, key, value = (x.clone().requires_grad_() for x in inputs)

    def layer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value, num_heads=2, mask=described, always_visible=2, backend="triton")

    output = torch.utils.checkpoint.checkpoint(layer, query, key, value, use_reentrant=False)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    gradients = torch.autograd.grad((output * weight).sum(), (query, key, value))
    for ours, theirs in zip((output, *gradients), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_one_graph_without_breaks() -> None:
    described = bands("random", rows=2, columns=3, batch=1)
    inputs = tuple(x.float() for x in tokens(described, registers=2))
    prepare(described, always_visible=2, backend="triton")
    (lines, queries), keys = described.prepared["triton"], described.prepared["triton, backward"]

    def layer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads = (x.unflatten(-1, (2, -1)).transpose(1, 2) for x in (query, key, value))
        met = [[each.order, each.lists, each.counts] for each in (queries, keys)]
        frames, grid = torch.arange(3)[None], described.grid
        return attend_bundles(*heads, lines, frames, *met, [3, grid.downsample], grid.half_width, False, 2)[0]

    query, key, value = (x.clone().requires_grad_() for x in inputs)
    output = torch.compile(layer, backend="aot_eager", fullgraph=True)(query, key, value)
    output = output.transpose(1, 2).flatten(2)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    gradients = torch.autograd.grad((output * weight).sum(), (query, key, value))
    for ours, theirs in zip((output, *gradients), run(described, inputs, 2), strict=True):
        assert torch.equal(ours, theirs)


def test_what_it_does_not_take_is_said_in_one_line() -> None:
    described = bands("random", rows=2, columns=2)
    inputs = tokens(described, registers=0)
    with pytest.raises(ValueError, match=r"^attention=triton: got torch.float64, allowed: float32, float16, bfloat16"):
        attend(*inputs, num_heads=2, mask=described, backend="triton")
    with pytest.raises(ValueError, match=r"^attention=triton: got heads of 130 channels, at most 128"):
        attend(*(x.float().repeat(1, 1, 65)[..., :260] for x in inputs), num_heads=2, mask=described, backend="triton")
    with pytest.raises(ValueError, match=r"^attention=triton: got a DenseMask; use attention=sdpa"):
        attend(*inputs, num_heads=2, mask=DenseMask(allowed=described.dense()), backend="triton")
