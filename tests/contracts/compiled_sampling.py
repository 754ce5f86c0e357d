"""Sample with a compiled denoiser, in a process without run-time checks of shapes, which cannot be traced.

`python -m tests.contracts.compiled_sampling [--backend inductor] [--mode MODE] [--device cuda] [method ...]` prints,
for each method, how far the compiled video is from the eager one (largest difference over the eager one's largest
value), how many graphs a first video takes, both branches of guidance in one pass, and how many more another clip of
that shape does.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, get_args

import numpy as np
import torch
from torch._dynamo import register_backend

from cami2v.compilation import CompileMode
from cami2v.inference.pipeline import Pipeline
from cami2v.inference.settings import open_picture
from launch.build import build_model
from launch.compose import compose_config, instantiate_part
from launch.load_model import LoadedModel
from launch.load_pipeline import source_of
from tests.tiny_models import randomise

METHODS = ("none", "motionctrl", "cameractrl", "cami2v")
SMALL = (
    "data.frames=4", "data.resolution=[32,32]", "backbone.widths=[32]", "backbone.head_width=16",
    "backbone.attention_downsamples=[]",
)  # fmt: skip
POSE_ENCODER = ("camera.pose_encoder.num_heads=2", "camera.pose_encoder.residual_blocks=1")
COUNTED = "counted"
graphs: list[torch.fx.GraphModule] = []


@register_backend(name=COUNTED)
def counted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    """Run what was traced as it is, and remember that it was."""
    graphs.append(graph)
    return graph


def pipeline(method: str, **options: Any) -> Pipeline:
    """Load a tiny model with random weights, the same at every call."""
    encoded = method in ("cameractrl", "cami2v")
    config = compose_config("train", [f"camera={method}", *SMALL, *(POSE_ENCODER if encoded else ())])
    model = build_model(config)
    randomise(model.backbone)
    randomise(model.camera)
    sampler = instantiate_part(config.sampler, "sampler")
    identity = {"path": "random"}
    return Pipeline(
        source_of(LoadedModel(model=model, sampler=sampler, config=config, identity=identity)),
        **{"device": "cpu"} | options,
    )


def video(pipe: Pipeline, clip: int, **options: Any) -> torch.Tensor:
    """Sample one of several clips that differ in everything but their shape."""
    pixels = np.random.default_rng(clip).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    settings = {
        "caption": f"room {clip}", "trajectory": ("orbit_right", "dolly_in")[clip], "seed": clip, "steps": 3,
        "branches": "together",
    }  # fmt: skip
    (request,) = pipe.requests([open_picture(pixels)], **settings | options)
    return pipe.animate(pipe.clip(request, open_picture(pixels)[1]), request.plan)


def measure(method: str, backend: str, mode: CompileMode | None, device: str) -> dict[str, float]:
    """Sample two clips, with a solver that remembers its steps, eagerly and compiled."""
    eager = pipeline(method, device=device)
    compiled = pipeline(method, compile=backend, compile_mode=mode, device=device)
    found: dict[str, float] = {"apart": 0.0}
    for clip in range(2):
        before = len(graphs)
        expected, got = (video(each, clip, sampler="unipc") for each in (eager, compiled))
        found["apart"] = max(found["apart"], float((got - expected).abs().max() / expected.abs().max()))
        found[f"graphs of clip {clip}"] = len(graphs) - before
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default=COUNTED)
    parser.add_argument("--mode", choices=get_args(CompileMode))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("methods", nargs="*")
    given = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    how = given.backend, given.mode, given.device
    print(json.dumps({method: measure(method, *how) for method in given.methods or METHODS}))
