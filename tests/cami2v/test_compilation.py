"""Compiled denoisers: which keys there are, and that nothing is read after a CUDA graph has written over it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cami2v.backbones.base import VideoBackbone
from cami2v.compilation import CompileMode, check_compilation, check_graphs
from cami2v.inference import Pipeline
from cami2v.inference.settings import open_picture
from cami2v.training.engine import EngineSettings, prepare_model
from tests.cami2v.training import toys
from tests.cami2v.training.conftest import one_process
from tests.cami2v.training.toys import ToyDiffusion, forget_engine, train
from tests.contracts.compiled_sampling import pipeline, video

__all__ = ["one_process"]

GRAPHS: tuple[CompileMode, ...] = ("reduce-overhead", "max-autotune")


@pytest.mark.parametrize(
    ("backend", "mode", "message"),
    [
        ("inducto", None, "x.compile: got 'inducto', expected null or a backend of torch.compile: "),
        (None, "reduce-overhead", "x.compile_mode: got reduce-overhead, a mode of inductor, but x.compile=null; set "),
        ("eager", "max-autotune", "x.compile_mode: got max-autotune, a mode of inductor, but x.compile=eager; set "),
    ],
)
def test_keys_that_mean_nothing_are_refused(backend: str | None, mode: CompileMode | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_compilation(backend, mode, prefix="x.")


def test_what_can_be_compiled_is_accepted() -> None:
    for backend, mode in ((None, None), ("inductor", None), ("eager", None), *(("inductor", each) for each in GRAPHS)):
        check_compilation(backend, mode)
    check_graphs("inductor", "max-autotune-no-cudagraphs", on_gpu=False)


@pytest.mark.parametrize(("backend", "mode"), [*(("inductor", mode) for mode in GRAPHS), ("cudagraphs", None)])
def test_graphs_need_a_gpu(backend: str, mode: CompileMode | None) -> None:
    with pytest.raises(ValueError, match=f"engine.compile.*: got {mode or backend}, which replays CUDA graphs and"):
        check_graphs(backend, mode, on_gpu=False, prefix="engine.")
    check_graphs(backend, mode, on_gpu=True)


def test_a_pipeline_refuses_what_it_cannot_compile() -> None:
    source = pipeline("none").source
    with pytest.raises(ValueError, match="compile_mode and offload: CUDA graphs need weights that stay where they are"):
        Pipeline(source, device="cpu", compile="inductor", compile_mode="reduce-overhead", offload=True)
    with pytest.raises(
        ValueError, match="compile_mode: got reduce-overhead, which replays CUDA graphs and needs a GPU"
    ):
        Pipeline(source, device="cpu", compile="inductor", compile_mode="reduce-overhead")


def test_a_request_tells_what_its_denoiser_ran_under() -> None:
    compiled = pipeline("none", compile="eager")
    picture = open_picture(torch.zeros(3, 40, 70))
    assert [compiled.requests([picture])[0].compile, pipeline("none").requests([picture])[0].compile] == ["eager", None]


class Replayed(VideoBackbone):
    """Returns, for every shape, the same memory at every call, and NaN in what it returned before."""

    def __init__(self, backbone: VideoBackbone, *, overwrites_output: bool) -> None:
        super().__init__()
        self.inner, self.overwrites_output = backbone, overwrites_output
        self.sites, self.smallest_multiple = backbone.sites, backbone.smallest_multiple
        self.outputs: dict[torch.Size, Tensor] = {}

    def forward(self, *inputs: Any) -> Tensor:
        for output in self.outputs.values():
            output.fill_(torch.nan)
        predicted = self.inner(*inputs)
        return self.outputs.setdefault(predicted.shape, torch.empty_like(predicted)).copy_(predicted)


UNGUIDED = {"sampler": "unipc", "guidance_scale": 1.0}
WAYS: list[dict[str, Any]] = [
    {"sampler": kind, "branches": branches, "camera_guidance": 1.5}
    for kind in ("ddim", "dpm_solver", "unipc")
    for branches in ("separate", "together")
]


@pytest.mark.parametrize("way", [*WAYS, UNGUIDED], ids=lambda way: "-".join(map(str, way.values())))
def test_sampling_keeps_what_the_next_replay_writes_over(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[None] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marked.append(None))
    pipe = pipeline("cami2v")
    expected = video(pipe, 0, **way)
    pipe.model.backbone = Replayed(pipe.model.backbone, overwrites_output=True)
    assert torch.equal(video(pipe, 0, **way), expected)
    assert len(marked) == 3 * (1 if way is UNGUIDED else 3 if way["branches"] == "separate" else 2), "once per replay"
    if way is not UNGUIDED:
        pipe.model.backbone.overwrites_output = False
        assert not torch.equal(video(pipe, 0, **way), expected), "the stand-in has no teeth"


class ReplayedGradient(torch.autograd.Function):
    """A matrix product whose gradient of the weight lies in the same memory in every backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, memory: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.memory = memory
        return inputs @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs, weight = ctx.saved_tensors
        ctx.memory.copy_(gradient.flatten(0, -2).T @ inputs.flatten(0, -2))
        return gradient @ weight, ctx.memory.detach(), None


class ReplayedLinear(nn.Linear):
    """A layer with such a gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        return ReplayedGradient.apply(inputs, self.weight, self.memory) + self.bias


def replayed_diffusion() -> ToyDiffusion:
    """Build the toy model with such a layer."""
    model = ToyDiffusion(dropout=0.0)
    layer = ReplayedLinear(model.out.in_features, model.out.out_features)
    layer.load_state_dict(model.out.state_dict())
    layer.memory = torch.empty_like(layer.weight)
    model.out = layer
    return model


def replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the toys' engine told that the denoiser is a CUDA graph."""
    plain = toys.engine_settings
    graphs: dict[str, Any] = {"compile": "inductor", "compile_mode": "reduce-overhead"}
    monkeypatch.setattr(toys, "engine_settings", lambda *how: dataclasses.replace(plain(*how), **graphs))


def gradient_norms(folder: Path, model: ToyDiffusion, **options: Any) -> list[float]:
    train(folder, "single", model=model, max_steps=3, **options)
    forget_engine()
    return [json.loads(line)["gradient_norm"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("one_process")
def test_micro_batches_add_up_where_gradients_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradient_norms(tmp_path / "eager", ToyDiffusion(dropout=0.0))
    wrong = gradient_norms(tmp_path / "wrong", replayed_diffusion())
    assert wrong != pytest.approx(expected, rel=1e-2), "the stand-in has no teeth"
    replay(monkeypatch)
    monkeypatch.setattr(EngineSettings, "check_machine", lambda self: None)
    assert gradient_norms(tmp_path / "kept", replayed_diffusion()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.gpu
@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_training_with_cuda_graphs_equals_eager(
    micro_batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not run so far: no machine of ours had a GPU."""
    size = {"micro_batch_size": micro_batch_size}
    expected = gradient_norms(tmp_path / "eager", ToyDiffusion(dropout=0.0), **size)
    replay(monkeypatch)
    model = ToyDiffusion(dropout=0.0)
    prepare_model(model, model.out, toys.engine_settings("single"))
    assert gradient_norms(tmp_path / "graphs", model, **size) == pytest.approx(expected, rel=1e-3)
