"""What `cami2v sample` can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from cami2v.attention.choice import AttentionChoice
from cami2v.camera_control.liveness import GuardSettings
from cami2v.compilation import CompileMode, check_compilation, check_graphs
from cami2v.diffusion.steps import StepSpacing
from cami2v.inference.image_clip import Compatibility, Portrait
from cami2v.inference.output import OutputFormat
from cami2v.inference.request import Precision
from cami2v.inference.sampling_plan import Branches
from cami2v.inference.scene_mask import SceneMaskRule
from launch.sample_jobs import Trajectories

FOR_THE_PIPELINE = (
    "frames", "resolution", "steps", "spacing", "guidance_scale", "guidance_rescale", "camera_guidance",
    "camera_guidance_schedule", "eta", "order", "frame_stride", "condition_frame", "end_image", "loop", "overlap",
    "field_of_view_degrees", "portrait", "compatibility", "branches", "decode_frames", "decode_tile", "noise_shaping",
    "scene_mask", "metres_per_unit", "paste_image",
)  # fmt: skip
"""Keys that mean in the pipeline what they mean here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSettings:
    """`data`: where clips come from, in place of images."""

    shards: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """Settings of conf/sample.yaml."""

    checkpoint: str | Sequence[str] | None
    methods: Mapping[str, str | Sequence[str]] | None
    from_experiment: str | None
    overrides: Sequence[str]
    base: str | Sequence[str] | None
    load_report: Path | None
    image: Path | None
    jobs: Path | None
    data: ShardSettings
    split: str
    clips: int | Sequence[str] | None
    replay: Path | None
    caption: str
    negative_caption: str
    trajectory: Trajectories | Sequence[Trajectories] | None
    extent: float | None
    loop: bool
    field_of_view_degrees: float | None
    portrait: Portrait
    compatibility: Compatibility
    frames: int | None
    resolution: tuple[int, int] | None
    condition_frame: int
    paste_image: bool
    end_image: Path | None
    overlap: int
    frame_stride: int | None
    frames_per_second: float
    metres_per_unit: float | None
    noise_shaping: int | None
    scene_mask: SceneMaskRule | None
    depth_map: Path | None
    depth_weights: str | None
    attention: AttentionChoice | None
    weights: Literal["trained", "ema"]
    steps: int | None
    spacing: StepSpacing | None
    guidance_scale: float | None
    guidance_rescale: float | None
    camera_guidance: float | None
    camera_guidance_schedule: Literal["constant", "cosine"] | None
    eta: float | None
    order: Literal[1, 2, 3] | None
    seed: int | Sequence[int]
    precision: Precision
    offload: bool
    device_map: Mapping[str, str] | None
    compile: str | None
    compile_mode: CompileMode | None
    branches: Branches
    decode_frames: int | None
    decode_tile: int | None
    formats: Sequence[OutputFormat]
    crf: int
    side_by_side: bool
    grid: bool
    output: Path
    guards: GuardSettings

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range, and for depth that nothing uses."""
        for key in ("frame_stride", "frames_per_second", "steps"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"{key}: got {value}, expected a number above 0")
        if self.replay is None:
            check_compilation(self.compile, self.compile_mode)
            check_graphs(self.compile, self.compile_mode, on_gpu=torch.cuda.is_available())
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf: got {self.crf}, expected 0 (lossless) to 51")
        for key in ("depth_map", "depth_weights", "scene_mask"):
            if getattr(self, key) is not None and self.noise_shaping is None:
                raise ValueError(
                    f"{key}={getattr(self, key)}: only noise_shaping uses it; set noise_shaping=900 as well"
                )
