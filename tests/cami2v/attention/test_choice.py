"""Which backend is taken, and what is refused with which words."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cami2v.attention import choice
from cami2v.attention.choice import check_training, machine_obstacle, pick
from cami2v.attention.core import AttentionCore, attend, choose_attention
from cami2v.attention.masks import DenseMask
from tests.cami2v.attention.bands_cases import bands, tokens
from tests.tiny_models import tiny_cami2v, tiny_unet

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")


@pytest.fixture
def cuda_with_xformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be such a machine, as far as choosing goes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(choice, "_import_error", lambda module: None)


def test_auto_takes_flex_for_bands_on_cuda_and_sdpa_for_the_rest() -> None:
    described = bands()
    written_out = DenseMask(allowed=described.dense())
    for differentiated in (False, True):
        assert pick("auto", described, device=CUDA, differentiated=differentiated) == "flex"
        for mask, device in ((None, CUDA), (written_out, CUDA), (None, CPU), (described, CPU), (written_out, CPU)):
            assert pick("auto", mask, device=device, differentiated=differentiated) == "sdpa"


def test_every_layer_of_denoiser_and_camera_branch_gets_the_choice() -> None:
    control = tiny_cami2v()
    unet = tiny_unet(control.adapter_for)
    cores = [module for part in (unet, control) for module in part.modules() if isinstance(module, AttentionCore)]
    assert len(cores) > 20
    for part in (unet, control):
        choose_attention(part, "flex")
    assert {core.backend for core in cores} == {"flex"}
    assert "backend=flex" in repr(cores[0])


@without_gpu
def test_what_this_machine_lacks_is_said_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^attention=xformers: it needs a CUDA device.*sdpa, xformers, flex, triton"):
        choose_attention(tiny_unet(), "xformers")
    with pytest.raises(ValueError, match=r"^attention=flex: its backward pass needs a CUDA device, this machine has"):
        check_training("flex")
    with pytest.raises(ValueError, match=r"^attention=triton: it needs a CUDA device, this machine has none"):
        choose_attention(tiny_unet(), "triton")
    with pytest.raises(ValueError, match=r"^attention=triton: it needs a CUDA device"):
        check_training("triton")
    described = bands()
    with pytest.raises(ValueError, match=r"^attention=triton: it needs CUDA, the model is on cpu"):
        attend(*tokens(described, registers=0), num_heads=2, mask=described, backend="triton")
    check_training("auto")
    check_training("sdpa")


def test_flex_backward_on_the_cpu_is_refused_before_anything_is_computed() -> None:
    described = bands()
    query, key, value = tokens(described, registers=0)
    attend(query, key, value, num_heads=2, mask=described, backend="flex")
    with pytest.raises(ValueError, match="attention=flex: its backward pass needs CUDA, the model is on cpu"):
        attend(query.requires_grad_(), key, value, num_heads=2, mask=described, backend="flex")


def test_flex_takes_no_mask_that_is_written_out() -> None:
    described = bands()
    query, key, value = tokens(described, registers=0)
    with pytest.raises(ValueError, match="attention=flex: got a DenseMask; use attention=sdpa"):
        attend(query, key, value, num_heads=2, mask=DenseMask(allowed=described.dense()), backend="flex")


@pytest.mark.usefixtures("cuda_with_xformers")
def test_xformers_is_refused_where_the_camera_method_masks() -> None:
    unmasked = tiny_cami2v(attention_levels=[], full_attention_levels=[1, 2])
    choose_attention(tiny_unet(unmasked.adapter_for), "xformers")
    masked = tiny_unet(tiny_cami2v().adapter_for)
    with pytest.raises(ValueError, match="attention=xformers: it has no masks described as bands"):
        choose_attention(masked, "xformers")
    assert {core.backend for core in masked.modules() if isinstance(core, AttentionCore)} == {"auto"}
    described = bands()
    with pytest.raises(ValueError, match="attention=xformers: it has no masks"):
        attend(*tokens(described, registers=0), num_heads=2, mask=described, backend="xformers")


def test_a_broken_xformers_is_told_apart_from_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choice._import_error.cache_clear()
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    obstacle = machine_obstacle("xformers")
    choice._import_error.cache_clear()
    assert obstacle is not None
    assert obstacle.startswith("it cannot be imported")


def test_without_triton_the_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choice._import_error.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    obstacle = machine_obstacle("triton")
    choice._import_error.cache_clear()
    assert obstacle is not None
    assert obstacle.endswith("it comes with PyTorch for CUDA on Linux")


def test_xformers_gets_heads_after_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        assert query.shape == (2, 60, 2, 4)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)

    module = types.ModuleType("xformers.ops")
    monkeypatch.setattr(module, "memory_efficient_attention", stand_in, raising=False)
    monkeypatch.setitem(sys.modules, "xformers", types.ModuleType("xformers"))
    monkeypatch.setitem(sys.modules, "xformers.ops", module)
    monkeypatch.setattr("cami2v.attention.core.pick", lambda *args, **kwargs: "xformers")
    query, key, value = tokens(bands(), registers=3)
    actual = attend(query, key, value, num_heads=2)
    monkeypatch.undo()
    torch.testing.assert_close(actual, attend(query, key, value, num_heads=2))
