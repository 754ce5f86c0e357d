"""`cami2v sample`: image + caption + trajectory -> video, side by side with the path that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from omegaconf import DictConfig

from cami2v.attention.choice import AttentionChoice
from cami2v.camera_control.liveness import GuardSettings, check_camera
from cami2v.geometry.cameras import relative_poses
from cami2v.inference.clip_video import enlarged, side_by_side, to_frames
from cami2v.inference.image_clip import Compatibility, Portrait, choose_trajectory, image_clip, read_image
from cami2v.inference.trajectory_plot import trajectory_figure, trajectory_image
from cami2v.video import write_mp4
from launch.compose import entry, settings
from launch.load_model import Source, held_out_stride, load_model

logger = logging.getLogger(__name__)

PLOT_INCHES = 4.0
PLOT_DPI = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """Settings of conf/sample.yaml."""

    checkpoint: str | Sequence[str]
    from_experiment: str | None
    overrides: Sequence[str]
    base: str | Sequence[str] | None
    load_report: Path | None
    image: Path
    caption: str
    trajectory: str
    extent: float
    field_of_view_degrees: float | None
    portrait: Portrait
    compatibility: Compatibility
    frame_stride: int | None
    frames_per_second: float
    attention: AttentionChoice | None
    weights: Literal["trained", "ema"]
    steps: int | None
    guidance_scale: float | None
    seed: int
    output: Path
    guards: GuardSettings

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        for key in ("frame_stride", "frames_per_second", "steps"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"{key}: got {value}, expected a number above 0")


def run(config: DictConfig) -> None:
    """Sample one video; inputs are checked before the model is built."""
    own = {key: config[key] for key in SampleSettings.__dataclass_fields__}
    sample(settings(DictConfig(own), SampleSettings, "sample"))


def sample(chosen: SampleSettings) -> Path:
    """Animate an image and write video, side-by-side video and trajectory plot; return the video's path.

    Raises ValueError for an unreadable image, an unknown trajectory, a checkpoint that does not load, or a camera
    that changes nothing.
    """
    image = read_image(chosen.image)
    choose_trajectory(chosen.trajectory, frames=2, extent=chosen.extent)
    loaded = load_model(Source(**{key: getattr(chosen, key) for key in Source.__dataclass_fields__}))
    model, sampler, trained = loaded.model, loaded.sampler, loaded.config
    if chosen.steps is not None:
        sampler.steps = chosen.steps
    if chosen.guidance_scale is not None:
        sampler.guidance.scale = chosen.guidance_scale
    trajectory = choose_trajectory(chosen.trajectory, frames=trained.data.frames, extent=chosen.extent)
    height, width = trained.data.resolution
    stride = held_out_stride(trained) if chosen.frame_stride is None else chosen.frame_stride
    batch = image_clip(
        image, trajectory, caption=chosen.caption, resolution=(height, width), frame_stride=stride,
        field_of_view_degrees=chosen.field_of_view_degrees, frames_per_second=None, seed=chosen.seed,
        portrait=chosen.portrait, compatibility=chosen.compatibility,
    )  # fmt: skip
    moved = batch.to(next(model.parameters()).device)
    check_camera(model, moved, guards=chosen.guards, source=f"checkpoint={chosen.checkpoint}")
    video = to_frames(model.generate(moved, sampler)[0])
    first = batch.seeds.new_zeros(1)
    path = {"asked for": relative_poses(trajectory.world_to_camera[None], first)[0]}
    name = f"{chosen.image.stem}-{Path(chosen.trajectory).stem}-seed{chosen.seed}"
    target = chosen.output / f"{name}.mp4"
    write_mp4(target, video, chosen.frames_per_second)
    panels = [enlarged(to_frames(batch.video[0])), enlarged(video)]
    plot = trajectory_image(path, size=panels[0].shape[1])
    panels.append(np.repeat(plot[None], len(video), axis=0))
    write_mp4(chosen.output / f"{name}-side-by-side.mp4", side_by_side(panels), chosen.frames_per_second)
    figure = trajectory_figure(path, inches=PLOT_INCHES, title=Path(chosen.trajectory).stem)
    figure.savefig(chosen.output / f"{name}-trajectory.png", dpi=PLOT_DPI)
    logger.info("video: %s  (and -side-by-side.mp4, -trajectory.png)", target)
    return target


main = entry("sample")(run)

if __name__ == "__main__":
    main()
