"""What runs on CUDA only. Not run so far: no machine of ours had a GPU (docs/attention.md)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cami2v.attention.choice import Backend
from cami2v.attention.core import attend
from cami2v.attention.masks import AttentionMask, DenseMask
from tests.cami2v.attention.bands_cases import OPTIONS, POSES, bands, tokens

pytestmark = pytest.mark.gpu


def run(mask: AttentionMask | None, inputs: tuple[Tensor, ...], registers: int, backend: Backend) -> tuple[Tensor, ...]:
    query, key, value = (x.clone().requires_grad_() for x in inputs)
    output = attend(query, key, value, num_heads=2, mask=mask, always_visible=registers, backend=backend)
    return (output.detach(), *torch.autograd.grad(output.square().sum(), (query, key, value)))


@pytest.mark.parametrize("backend", ["sdpa", "flex", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("poses", POSES)
@pytest.mark.parametrize("condition_frame", [False, True])
def test_bands_equal_the_dense_mask(backend: Backend, dtype: torch.dtype, poses: str, condition_frame: bool) -> None:
    for registers, options in ((0, OPTIONS[0]), *((4, options) for options in OPTIONS)):
        described = bands(poses, options=options, condition_frame=condition_frame, rows=12, columns=11)
        inputs = tuple(x.to("cuda", dtype) for x in tokens(described, registers=registers, width=64))
        described = described.to("cuda")
        expected = run(DenseMask(allowed=described.dense()), inputs, registers, "sdpa")
        for ours, theirs in zip(run(described, inputs, registers, backend), expected, strict=True):
            assert torch.isfinite(ours).all()
            tolerance = 1e-2 if dtype == torch.float32 else 3e-2  # flex multiplies float32 in TF32
            assert (ours - theirs).double().norm() <= tolerance * theirs.double().norm().clamp_min(1e-6)


@pytest.mark.parametrize("poses", ["random", "forward"])
@pytest.mark.parametrize("width", [32, 40, 128])
def test_triton_at_a_real_frame_size_and_other_widths(poses: str, width: int) -> None:
    described = bands(poses, batch=1, perturbed=True, rows=32, columns=32)
    inputs = tuple(x.to("cuda", torch.float32) for x in tokens(described, registers=4, width=2 * width))
    described = described.to("cuda")
    expected = run(DenseMask(allowed=described.dense()), inputs, 4, "sdpa")
    actual = run(described, inputs, 4, "triton")
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours - theirs).double().norm() <= 3e-3 * theirs.double().norm()  # SDPA may multiply in TF32
    for ours, again in zip(actual, run(described, inputs, 4, "triton"), strict=True):
        assert torch.equal(ours, again), "nothing is added in an order that changes"


def test_a_triton_step_waits_for_nothing() -> None:
    described = bands("random", batch=1, rows=16, columns=16, options=OPTIONS[1]).to("cuda")
    inputs = tuple(x.to("cuda", torch.bfloat16) for x in tokens(described, registers=4, width=128))
    run(described, inputs, 4, "triton")  # compiles
    described = described.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(described, inputs, 4, "triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_xformers_equals_sdpa() -> None:
    pytest.importorskip("xformers.ops")
    inputs = tuple(torch.randn(2, n, 128, device="cuda", dtype=torch.bfloat16) for n in (60, 77, 77))
    expected = run(None, inputs, 0, "sdpa")
    for ours, theirs in zip(run(None, inputs, 0, "xformers"), expected, strict=True):
        assert (ours - theirs).double().norm() <= 3e-2 * theirs.double().norm()
