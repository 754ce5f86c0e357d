"""Everything that one generated video depends on, as values that JSON can hold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from cami2v.inference.image_clip import Compatibility, Portrait
from cami2v.inference.sampler_settings import SamplerSettings
from cami2v.inference.sampling_plan import Branches, SamplingPlan
from cami2v.inference.scene import NoiseShapingRule
from cami2v.signature import build_settings
from cami2v.trajectories.trajectory import Trajectory

Precision = Literal["fp32", "bf16", "fp16"]
Rows = tuple[tuple[float, ...], ...]

FORMAT = 1
"""Version of a request's JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One video: what to animate, along which cameras, by which model and how. The same request, the same frames.

    The path is kept as poses, not by name: a trajectory file may change, and presets may be improved.
    """

    image: str
    """Where the image came from; empty where it was handed in as pixels."""
    image_sha256: str
    """Of its size and its pixels as 8-bit RGB."""
    caption: str
    negative_caption: str
    trajectory: str
    world_to_camera: Rows
    """12 numbers a frame, row-major [R|t], OpenCV axes."""
    intrinsics_normalized: Rows | None
    """fx fy cx cy a frame, divided by the image's width and height; None: `field_of_view_degrees`."""
    zoom: tuple[float, ...] | None
    """Factor on the focal lengths a frame; None: they stay."""
    field_of_view_degrees: float | None
    portrait: Portrait
    compatibility: Compatibility
    height: int
    width: int
    frame_stride: int
    told_frames_per_second: float | None
    """What a model conditioned on frames per second is told; None: 29.97 divided by the stride."""
    condition_frame: int
    """Which frame the image is."""
    seed: int
    sampler: SamplerSettings
    window: int
    """Frames made at once; a longer video is made in windows."""
    overlap: int
    branches: Branches
    precision: Precision
    decode_frames: int | None
    decode_tile: int | None
    model: Mapping[str, Any]
    versions: Mapping[str, str]
    metres_per_unit: float | None = None
    """Translations are metres, and one unit of the model's training poses is so many; None: they are in its unit."""
    noise_shaping: NoiseShapingRule | None = None
    paste_image: bool = False
    """Whether the conditioning frame's clean latents are replaced by the image's own at every step."""
    depth_sha256: str | None = None
    """Of the depth map that the scene is made of; None where there is no scene, or the map is still to be estimated."""
    compile: str | None = None
    """Backend of torch.compile that the denoiser ran under: it rounds differently."""
    format: int = FORMAT

    @property
    def frames(self) -> int:
        """Return the video's length."""
        return len(self.world_to_camera)

    @property
    def plan(self) -> SamplingPlan:
        """Return what does not depend on the picture and its path."""
        return SamplingPlan(**{field.name: getattr(self, field.name) for field in dataclasses.fields(SamplingPlan)})

    def path(self) -> Trajectory:
        """Return the cameras."""
        intrinsics = self.intrinsics_normalized
        return Trajectory(
            world_to_camera=_tensor(self.world_to_camera).reshape(-1, 3, 4),
            intrinsics_normalized=None if intrinsics is None else _tensor(intrinsics),
            zoom=None if self.zoom is None else torch.tensor(self.zoom, dtype=torch.float64),
        )

    def to_json(self) -> str:
        """Return one line; `from_json` gives the same request."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str = "request") -> Request:
        """Read what `to_json` wrote. Raises ValueError, naming `source`, for anything else."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source}: not JSON ({error}); expected a request of cami2v sample") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise ValueError(f"{source}: a request of format {found}, this version reads {FORMAT}")
        return build_settings(cls, values, source)


def rows(matrix: Float64[Tensor, "frames ..."]) -> Rows:
    """Write poses or intrinsics as a tuple of numbers a frame."""
    return tuple(tuple(float(number) for number in row) for row in matrix.flatten(1).tolist())


def _tensor(numbers: Rows) -> Float64[Tensor, "frames numbers"]:
    return torch.tensor(numbers, dtype=torch.float64)
