"""Where a model's parts are while it samples, and in which precision they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import nn

from cami2v.encoders.base import DepthEstimator
from cami2v.inference.placed_towers import PlacedDepth, Tower, with_towers_apart
from cami2v.inference.request import Precision
from cami2v.model import VideoDiffusion

Stage = Literal["encode", "denoise", "decode", "depth"]

DENOISER, DEPTH = "backbone", "depth"
PARTS = (DENOISER, *get_args(Tower), DEPTH)
"""Keys of a device map. The camera encoder and the image projector are where the backbone is."""

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Placement:
    """Puts the parts of a model on devices, and moves them between a device and host memory.

    With `device_map` parts stay on devices of their own, those that it leaves out on `device`. With `offload` only the
    parts that a stage of sampling needs are on the device: the encoders and the camera encoder, then the denoiser, then
    the first stage. Raises ValueError for both at once, and for parts and devices that there are not.
    """

    def __init__(
        self,
        model: VideoDiffusion,
        *,
        device: torch.device,
        offload: bool,
        depth: DepthEstimator | None,
        device_map: Mapping[str, str],
    ) -> None:
        if offload and device_map:
            raise ValueError("device_map and offload: choose one; what is offloaded has no device of its own")
        places = {part: _device(part, place) for part, place in device_map.items()}
        self.device = places.pop(DENOISER, device)
        self.offload = offload
        apart = {part: place for part, place in places.items() if place != self.device}
        home = torch.device("cpu") if offload else self.device
        for name, part in model.named_children():
            _place(part, apart.get(name, home), home)
        if depth is not None:
            _place(depth, apart.get(DEPTH, home), home)
        self.depth = depth
        if depth is not None and DEPTH in apart:
            self.depth = PlacedDepth(depth, apart[DEPTH], self.device)
        towers: dict[Tower, torch.device] = {tower: apart[tower] for tower in get_args(Tower) if tower in apart}
        self.model = with_towers_apart(model, towers, self.device) if towers else model

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
    """Store all weights but those of first stage and depth network, whose frames and metres are float32."""
    model.to(DTYPES[precision])
    model.first_stage.float()
    if model.depth is not None:
        model.depth.float()


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a model of this precision computes."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=DTYPES[precision])


def _device(part: str, place: str) -> torch.device:
    """Check an entry of a device map."""
    if part not in PARTS:
        raise ValueError(f"device_map.{part}: no such part; choose among {', '.join(PARTS)}")
    try:
        device = torch.device(place)
    except RuntimeError as error:
        raise ValueError(f"device_map.{part}={place}: not a device; write cpu, cuda or cuda:<number>") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device_map.{part}={place}: PyTorch finds {torch.cuda.device_count()} GPUs here")
    return device


def _place(part: nn.Module, device: torch.device, home: torch.device) -> None:
    """Move a part; one on another kind of device than the denoiser is outside its autocast: it computes in float32."""
    part.to(device)
    if device.type != home.type:
        part.float()
