"""Compile every method's denoiser in a process without run-time checks of shapes, which cannot be traced.

`python -m tests.contracts.compiled_denoiser [method ...]` prints how many graphs each takes (20 s each); `training` is
CamI2V with its backward pass and selective activation checkpointing. Kernels in Triton need TRITON_INTERPRET=1 on a
CPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.backends.debugging import aot_eager

from cami2v.attention.core import choose_attention
from cami2v.camera_control.base import CameraControl
from cami2v.camera_control.cameractrl import CameraCtrl
from cami2v.camera_control.motionctrl import MotionCtrl
from cami2v.camera_control.none import NoCameraControl
from cami2v.draws import Draws
from tests.tiny_models import (
    randomise,
    tiny_cameras,
    tiny_cami2v,
    tiny_conditioning,
    tiny_latents,
    tiny_pose_encoder,
    tiny_unet,
)

METHODS: dict[str, Callable[[], CameraControl]] = {
    "none": NoCameraControl,
    "motionctrl": lambda: MotionCtrl(trace_scale=1.0),
    "cameractrl": lambda: CameraCtrl(pose_encoder=tiny_pose_encoder(), trace_scale=1.0),
    "cami2v": lambda: tiny_cami2v(attention_levels=[1]),
    "cami2v, flex": lambda: tiny_cami2v(attention_levels=[1]),
    "cami2v, triton": lambda: tiny_cami2v(attention_levels=[1]),
}


TRAINING = "training"


def graphs_of(method: str) -> int:
    """Trace a denoiser without a break, run it on two clips and compare; return how many graphs that took."""
    control = METHODS[method]()
    unet = tiny_unet(control.adapter_for, widths=[32])
    randomise(unet)
    choose_attention(unet, "flex" if method.endswith("flex") else "triton" if method.endswith("triton") else "auto")
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled: Any = torch.compile(unet, backend=backend, fullgraph=True, dynamic=False)
    latents = tiny_latents(1)
    frame = torch.zeros(1, dtype=torch.int64)
    for seed in (1, 2):
        cameras = tiny_cameras(1)
        cameras.world_to_camera[:, :, 1, 3] += 0.05 * seed * torch.arange(4)
        condition = control.encode(cameras, condition_frame=frame, draws=Draws(torch.tensor([seed])))
        inputs = latents, torch.tensor([500 * seed - 1]), tiny_conditioning(latents), condition
        with torch.no_grad():
            torch.testing.assert_close(compiled(*inputs), unet(*inputs), rtol=1e-4, atol=1e-5)
    return len(graphs)


def graphs_in_training() -> int:
    """Trace a denoiser that computes activations again, compare its gradients; return how many graphs that took."""
    control = tiny_cami2v(attention_levels=[1])
    unet = tiny_unet(control.adapter_for, widths=[32], activation_checkpointing="selective")
    randomise(unet)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    compiled: Any = torch.compile(unet, backend=backend, fullgraph=True, dynamic=False)
    latents, frame = tiny_latents(1), torch.zeros(1, dtype=torch.int64)
    gradients = []
    for run in (compiled, unet):
        unet.zero_grad()
        condition = control.encode(tiny_cameras(1), condition_frame=frame, draws=Draws(torch.tensor([1])))
        run(latents, torch.tensor([499]), tiny_conditioning(latents), condition).square().mean().backward()
        gradients.append([parameter.grad for parameter in unet.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    return len(graphs)


if __name__ == "__main__":
    names = sys.argv[1:] or [*METHODS, TRAINING]
    print(json.dumps({name: graphs_in_training() if name == TRAINING else graphs_of(name) for name in names}))
