"""Where a model's parts are while it samples, and in which precision they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn

from cami2v.encoders.base import DepthEstimator
from cami2v.inference.request import Precision
from cami2v.model import VideoDiffusion

Stage = Literal["encode", "denoise", "decode", "depth"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Placement:
    """Moves the parts of a model between a device and host memory.

    With `offload` only the parts that a stage of sampling needs are on the device: the encoders and the camera encoder,
    then the denoiser, then the first stage. Without, all of them stay there.
    """

    def __init__(
        self, model: VideoDiffusion, *, device: torch.device, offload: bool, depth: DepthEstimator | None
    ) -> None:
        self.model = model
        self.depth = depth
        self.device = device
        self.offload = offload
        model.to("cpu" if offload else device)
        if depth is not None:
            depth.to("cpu" if offload else device)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Have a stage's parts on the device."""
        if not self.offload:
            yield
            return
        needed = self._parts(stage)
        for part in needed:
            part.to(self.device)
        try:
            yield
        finally:
            for part in needed:
                part.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _parts(self, stage: Stage) -> list[nn.Module]:
        model = self.model
        if stage == "encode":
            return [model.text_encoder, model.image_encoder, model.image_projector, model.first_stage, model.camera]
        if stage == "depth":
            return [] if self.depth is None else [self.depth]
        return [model.backbone] if stage == "denoise" else [model.first_stage]


def set_precision(model: VideoDiffusion, precision: Precision) -> None:
    """Store everything but first stage and depth network in a precision: frames and metres are always float32."""
    model.to(DTYPES[precision])
    model.first_stage.float()
    if model.depth is not None:
        model.depth.float()


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a model of this precision computes."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=DTYPES[precision])
