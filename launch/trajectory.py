"""`cami2v trajectory`: list presets; make, edit, convert and preview camera paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from omegaconf import DictConfig
from torch import Tensor

from cami2v.inference.image_clip import normalized_intrinsics, read_image
from cami2v.inference.trajectory_plot import trajectory_figure
from cami2v.trajectories.choose import VIDEOS, ChosenPath, name_of, open_path
from cami2v.trajectories.edits import enlarged
from cami2v.trajectories.files import Timing, path_through, read_path, write_path
from cami2v.trajectories.lift import lift
from cami2v.trajectories.presets import PRESETS
from cami2v.trajectories.preview import facts, preview_size, resized, seen_along
from cami2v.trajectories.scene_page import SeenImage, write_scene
from cami2v.trajectories.specification import Place, edited
from cami2v.trajectories.trajectory import Trajectory, relative_to
from cami2v.trajectories.warp import read_depth
from cami2v.video import write_mp4
from data_pipeline.metric_scale.depth import DepthFrames
from launch.compose import entry, instantiate_part, settings
from launch.depth_network import NetworkSettings, network_depth

DEFAULT_FRAMES = 16
PLOT_INCHES = 4.0
PLOT_DPI = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSettings:
    """`edit`: changes to the path."""

    part: Sequence[float] | None
    reverse: bool
    ease: str | Sequence[float] | None
    loop: bool
    speed: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSettings:
    """`preview`: what to look at before sampling."""

    output: Path | None
    image: Path | None
    depth_map: Path | None
    plane_distance: float
    short_side: int

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.short_side < 16:
            raise ValueError(f"preview.short_side={self.short_side}: must be at least 16")
        if not self.plane_distance > 0:
            raise ValueError(f"preview.plane_distance={self.plane_distance}: must be above 0")
        if self.image is not None and self.output is None:
            raise ValueError(f"preview.image={self.image}: without preview.output=<folder> nothing is drawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftSettings:
    """`lift`: how a video's path is estimated."""

    frames: int
    short_side: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectorySettings:
    """Settings of conf/trajectory.yaml."""

    source: str | Mapping[str, Any] | None
    format: str | None
    timing: Timing
    frames: int | None
    extent: float | None
    edit: EditSettings
    condition_frame: int | None
    output: Path | None
    output_format: str | None
    height: int
    width: int
    field_of_view_degrees: float | None
    frames_per_second: float
    preview: PreviewSettings
    depth_weights: str | None
    device: Literal["auto", "cpu", "cuda"]

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        for key in ("frames", "height", "width", "frames_per_second"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise ValueError(f"{key}={value}: must be above 0")


def run(config: DictConfig) -> None:
    """List the presets, or make a path and say, write and show what it is."""
    own = {key: config[key] for key in TrajectorySettings.__dataclass_fields__}
    chosen = settings(DictConfig(own), TrajectorySettings, "trajectory")
    if chosen.source is None:
        print("\n".join(listing()))
        return
    opened = _open(chosen, config)
    edits = {key: value for key, value in asdict(chosen.edit).items() if value is not None}
    place = Place(name="edit", folder=Path())
    opened = ChosenPath(
        path=edited(opened.path, edits, place), frames=opened.frames, condition_frame=opened.condition_frame
    )
    trajectory = opened.sample(chosen.frames, default_frames=DEFAULT_FRAMES)
    if chosen.condition_frame is not None:
        trajectory = relative_to(trajectory, chosen.condition_frame)
    origin = next((each for each in (chosen.condition_frame, opened.condition_frame) if each is not None), 0)
    for key, value in facts(trajectory):
        print(f"{key:<13}{value}")
    if chosen.output is not None:
        intrinsics = normalized_intrinsics(trajectory, chosen.field_of_view_degrees, chosen.height, chosen.width)
        form = write_path(
            chosen.output.expanduser(), trajectory, intrinsics, form=chosen.output_format,
            size=(chosen.height, chosen.width), frames_per_second=chosen.frames_per_second,
        )  # fmt: skip
        print(f"{'written':<13}{chosen.output} ({form})")
    if chosen.preview.output is not None:
        _preview(chosen, trajectory, origin, config)


def listing() -> list[str]:
    """Return a line for every preset."""
    width = max(map(len, PRESETS)) + 2
    lines = [f"{'preset':<{width}}{'extent':<19}what the camera does"]
    for name, each in PRESETS.items():
        extent = "-" if each.unit == "-" else f"{each.extent:g} {each.unit}"
        lines.append(f"{name:<{width}}{extent:<19}{each.does}")
    lines += [
        "",
        "several at once: zoom_in+look_left; files, key-frames, sequences and edits: docs/trajectories.md",
        "cami2v trajectory source=<path> [output=<file>] [preview.output=<folder>]; cami2v sample trajectory=<path>",
    ]
    return lines


def _open(chosen: TrajectorySettings, config: DictConfig) -> ChosenPath:
    source = chosen.source
    assert source is not None
    if isinstance(source, str) and Path(source).suffix.lower() in VIDEOS:
        how = settings(
            DictConfig({key: config.lift[key] for key in LiftSettings.__dataclass_fields__}), LiftSettings, "lift"
        )
        lifted = lift(
            Path(source).expanduser(), instantiate_part(config.lift.estimator, "lift.estimator"), frames=how.frames,
            short_side=how.short_side, seed=how.seed, field_of_view_degrees=chosen.field_of_view_degrees,
        )  # fmt: skip
        guess = " (a guess: set field_of_view_degrees)" if chosen.field_of_view_degrees is None else ""
        print(
            f"{'lifted':<13}from frames {lifted.frame_numbers[0]} to {lifted.frame_numbers[-1]}, "
            f"{lifted.quality.describe()}{guess}"
        )
        poses = lifted.trajectory
        path = path_through(
            poses.camera_to_world(), poses.intrinsics_normalized, np.arange(len(poses.world_to_camera)) * 1.0
        )
        scaled = path if chosen.extent is None else enlarged(path, chosen.extent)
        return ChosenPath(path=scaled, frames=None, condition_frame=None)
    if isinstance(source, str) and (chosen.format is not None or chosen.timing != "frames"):
        path = read_path(Path(source).expanduser(), form=chosen.format, timing=chosen.timing)
        scaled = path if chosen.extent is None else enlarged(path, chosen.extent)
        return ChosenPath(path=scaled, frames=None, condition_frame=None)
    return open_path(source, extent=chosen.extent)


def _preview(chosen: TrajectorySettings, trajectory: Trajectory, origin: int, config: DictConfig) -> None:
    preview = chosen.preview
    assert preview.output is not None
    folder, name = preview.output.expanduser(), name_of(chosen.source or "")
    image = None if preview.image is None else read_image(preview.image.expanduser())
    seen: SeenImage | None = None
    height, width = chosen.height, chosen.width
    if image is not None:
        height, width = preview_size(image.shape[1], image.shape[2], preview.short_side)
        image = resized(image, (height, width))
        seen = seen_along(
            image, _depth(chosen, image, config), trajectory, condition_frame=origin,
            field_of_view_degrees=chosen.field_of_view_degrees,
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    relative = relative_to(trajectory, origin)
    figure = trajectory_figure({"path": relative.camera_to_world()}, inches=PLOT_INCHES, title=name)
    figure.savefig(folder / f"{name}-path.png", dpi=PLOT_DPI)
    drawn = Trajectory(
        world_to_camera=relative.world_to_camera,
        intrinsics_normalized=normalized_intrinsics(relative, chosen.field_of_view_degrees, height, width),
    )
    write_scene(
        folder / f"{name}-scene.html", drawn, title=name, condition_frame=origin, facts=facts(trajectory), seen=seen,
        frames_per_second=chosen.frames_per_second,
    )  # fmt: skip
    written = ["-path.png", "-scene.html"]
    if seen is not None:
        write_mp4(folder / f"{name}-warp.mp4", seen.video, chosen.frames_per_second)
        written.append("-warp.mp4")
    print(f"{'preview':<13}{', '.join(str(folder / f'{name}{suffix}') for suffix in written)}")


def _depth(
    chosen: TrajectorySettings, image: Float32[Tensor, "3 height width"], config: DictConfig
) -> Float32[Tensor, "height width"]:
    height, width = image.shape[1:]
    if chosen.preview.depth_map is not None:
        return read_depth(chosen.preview.depth_map.expanduser(), height, width)
    if not config.get("depth"):
        print(f"{'depth':<13}a wall at {chosen.preview.plane_distance:g} (give preview.depth_map or a depth network)")
        return torch.full((height, width), chosen.preview.plane_distance)
    network = network_depth(config.depth, NetworkSettings(depth_weights=chosen.depth_weights, device=chosen.device))
    pixels = rearrange((image + 1) * 127.5, "c h w -> 1 h w c").round().clamp(0, 255).byte().numpy()
    maps = network(DepthFrames(clip_id="image", split=None, numbers=(0,), images=pixels))
    return torch.from_numpy(maps[0]).float()


main = entry("trajectory")(run)

if __name__ == "__main__":
    main()
