"""`cami2v sample`: images + captions + trajectories -> videos, a grid of them, or an earlier video once more."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from cami2v.attention.choice import AttentionChoice
from cami2v.camera_control.liveness import GuardSettings
from cami2v.diffusion.sampler import Sampler
from cami2v.diffusion.steps import StepSpacing
from cami2v.geometry.cameras import relative_poses
from cami2v.inference.clip_video import enlarged, side_by_side, to_frames
from cami2v.inference.grid import labelled_grid
from cami2v.inference.image_clip import Compatibility, Portrait, choose_trajectory, read_image
from cami2v.inference.output import OutputFormat, read_text, write_output
from cami2v.inference.pipeline import Generated, Pipeline
from cami2v.inference.record import Record, frames_sha256
from cami2v.inference.request import Branches, Precision, Request, SamplerSettings
from cami2v.inference.settings import Picture, open_picture
from cami2v.inference.trajectory_plot import trajectory_figure, trajectory_image
from cami2v.trajectories.choose import name_of
from cami2v.video import write_mp4
from launch.compose import entry, instantiate_part, settings
from launch.load_pipeline import load, load_recorded
from launch.sample_jobs import Job, JobRow, Trajectories, jobs_of

logger = logging.getLogger(__name__)

PLOT_INCHES = 4.0
PLOT_DPI = 150

FOR_THE_PIPELINE = (
    "frames", "resolution", "steps", "spacing", "guidance_scale", "guidance_rescale", "camera_guidance",
    "camera_guidance_schedule", "eta", "order", "frame_stride", "condition_frame", "end_image", "loop", "overlap",
    "field_of_view_degrees", "portrait", "compatibility", "branches", "decode_frames", "decode_tile",
)  # fmt: skip
"""Keys that mean in the pipeline what they mean here."""


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
    replay: Path | None
    caption: str
    negative_caption: str
    trajectory: Trajectories | Sequence[Trajectories]
    extent: float | None
    loop: bool
    field_of_view_degrees: float | None
    portrait: Portrait
    compatibility: Compatibility
    frames: int | None
    resolution: tuple[int, int] | None
    condition_frame: int
    end_image: Path | None
    overlap: int
    frame_stride: int | None
    frames_per_second: float
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
        """Raise ValueError for values out of range."""
        for key in ("frame_stride", "frames_per_second", "steps"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"{key}: got {value}, expected a number above 0")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf: got {self.crf}, expected 0 (lossless) to 51")


def run(config: DictConfig) -> None:
    """Sample what is asked for; inputs are checked before a model is built."""
    own = {key: config[key] for key in SampleSettings.__dataclass_fields__}
    chosen = settings(DictConfig(own), SampleSettings, "sample")
    sampler: Sampler | None = instantiate_part(config.sampler, "sampler") if config.get("sampler") else None
    if chosen.replay is not None:
        replay(chosen, chosen.replay)
    else:
        sample(chosen, None if sampler is None else SamplerSettings.of(sampler))


def sample(chosen: SampleSettings, sampler: SamplerSettings | None = None) -> list[Path]:
    """Make every job with every method and write videos, plots and grids; return the videos' paths.

    `sampler` takes the place of the models' own. Raises ValueError for an unreadable image, an unknown trajectory, a
    checkpoint that does not load, or a camera that changes nothing.
    """
    methods = _methods(chosen)
    template = JobRow(
        image=Path(), caption=chosen.caption, negative_caption=chosen.negative_caption, trajectory=chosen.trajectory,
        extent=chosen.extent, seed=chosen.seed,
    )  # fmt: skip
    jobs = jobs_of(chosen.image, chosen.jobs, template)
    for job in jobs:
        read_image(job.image)
        for trajectory in job.trajectory:
            choose_trajectory(trajectory, frames=2, extent=job.extent)
    grids: dict[str, dict[tuple[str, str], Generated]] = {job.name: {} for job in jobs}
    written = []
    for method, checkpoint in methods.items():
        pipeline = _pipeline(chosen, checkpoint, sampler)
        planned = [(job, *made) for job in jobs for made in _requests(chosen, pipeline, job)]
        pipeline.check_camera(*planned[0][1:], guards=chosen.guards, source=f"checkpoint={checkpoint}")
        steps = sum(pipeline.steps(request) for _, request, _ in planned)
        with tqdm(total=steps, desc=method or "denoising", disable=not sys.stderr.isatty()) as bar:
            for job, request, picture in planned:
                # One by one: a batch would change the last digits, and a replay makes one video.
                made = pipeline.generate([request], [picture], on_progress=lambda _: bar.update())[0]
                written.append(_write(chosen, pipeline, made, _name(method, job, request)))
                row = f"{method} seed {request.seed}" if method else f"seed {request.seed}"
                grids[job.name][row, _label(request)] = made
        del pipeline
    for name, cells in grids.items():
        if chosen.grid and len(cells) > 1:
            _write_grid(chosen, name, cells)
    return written


def replay(chosen: SampleSettings, video: Path) -> Path:
    """Make a video once more from what its file carries; return the new file's path.

    `checkpoint` and `image` say where they are now, if they have moved. Raises ValueError where the file carries
    nothing, and where weights or image are others than they were.
    """
    record = Record.from_json(read_text(video), video)
    picture = record.picture(chosen.image)
    request = record.request
    source = load_recorded(request.model, chosen.checkpoint, chosen.base)
    pipeline = Pipeline(source, precision=request.precision, offload=chosen.offload)
    made = pipeline.generate([request], [picture])[0]
    written = _write(chosen, pipeline, made, f"{video.stem}-replay")
    if frames_sha256(made.frames) == record.frames_sha256:
        logger.info("%s: the frames are identical", written)
    else:
        here = pipeline.facts().constant["versions"]
        logger.warning("%s: the frames DIFFER; made with %s, here %s", written, dict(request.versions), here)
    return written


def _methods(chosen: SampleSettings) -> dict[str, str | Sequence[str]]:
    """Return checkpoints by label; a single one has none."""
    if (chosen.checkpoint is None) == (chosen.methods is None):
        given = "neither" if chosen.checkpoint is None else "both"
        raise ValueError(
            f"checkpoint and methods: got {given}; give checkpoint=<run folder, exported folder or released files>, or "
            "several to compare: methods='{first: <...>, second: <...>}'"
        )
    return {"": chosen.checkpoint} if chosen.checkpoint is not None else dict(chosen.methods or {})


def _pipeline(chosen: SampleSettings, checkpoint: str | Sequence[str], sampler: SamplerSettings | None) -> Pipeline:
    source = load(
        checkpoint,
        experiment=chosen.from_experiment,
        overrides=chosen.overrides,
        base=chosen.base,
        weights=chosen.weights,
        attention=chosen.attention,
        load_report=chosen.load_report,
    )
    return Pipeline(source, precision=chosen.precision, offload=chosen.offload, sampler=sampler)


def _requests(chosen: SampleSettings, pipeline: Pipeline, job: Job) -> list[tuple[Request, Picture]]:
    picture = open_picture(job.image)
    shared = {key: getattr(chosen, key) for key in FOR_THE_PIPELINE}
    combinations = [(trajectory, seed) for trajectory in job.trajectory for seed in job.seed]
    requests = pipeline.requests(
        [picture],
        **shared,
        caption=job.caption,
        negative_caption=job.negative_caption,
        extent=job.extent,
        trajectory=[trajectory for trajectory, _ in combinations],
        seed=[seed for _, seed in combinations],
    )
    return [(request, picture[1]) for request in requests]


def _write(chosen: SampleSettings, pipeline: Pipeline, made: Generated, name: str) -> Path:
    """Write one video in every format, and beside its image and path; return the first format's path."""
    stem, text = chosen.output / name, Record.of(made).to_json()
    rate = chosen.frames_per_second
    paths = [
        write_output(stem, made.frames, kind, frames_per_second=rate, crf=chosen.crf, text=text)
        for kind in chosen.formats
    ]
    if chosen.side_by_side:
        _write_side_by_side(chosen, pipeline, made, name)
    logger.info("video: %s%s", paths[0], "  (and -side-by-side.mp4, -trajectory.png)" if chosen.side_by_side else "")
    return paths[0]


def _write_side_by_side(chosen: SampleSettings, pipeline: Pipeline, made: Generated, name: str) -> None:
    clip = pipeline.clip(made.request, made.picture)
    poses = made.request.path().world_to_camera
    path = {"asked for": relative_poses(poses[None], clip.seeds.new_zeros(1))[0]}
    panels = [enlarged(to_frames(clip.video[0])), enlarged(made.frames)]
    plot = trajectory_image(path, size=panels[0].shape[1])
    panels.append(np.repeat(plot[None], len(made.frames), axis=0))
    write_mp4(
        chosen.output / f"{name}-side-by-side.mp4", side_by_side(panels), chosen.frames_per_second, crf=chosen.crf
    )
    figure = trajectory_figure(path, inches=PLOT_INCHES, title=_label(made.request))
    figure.savefig(chosen.output / f"{name}-trajectory.png", dpi=PLOT_DPI)


def _write_grid(chosen: SampleSettings, name: str, cells: Mapping[tuple[str, str], Generated]) -> None:
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    grid = labelled_grid({place: made.frames for place, made in cells.items()}, rows, columns)
    target = chosen.output / f"{name}-grid.mp4"
    write_mp4(target, grid, chosen.frames_per_second, crf=chosen.crf)
    logger.info("grid: %s (%d rows, %d columns)", target, len(rows), len(columns))


def _name(method: str, job: Job, request: Request) -> str:
    parts = [method, job.name, _label(request), f"seed{request.seed}"]
    return "-".join(part.replace("/", "_") for part in parts if part)


def _label(request: Request) -> str:
    return name_of(request.trajectory)


def replay_argument(arguments: Sequence[str]) -> list[str]:
    """Write `--replay <video>` as the key it means."""
    rewritten: list[str] = []
    waiting = False
    for argument in arguments:
        if argument == "--replay":
            waiting = True
            continue
        name = argument.removeprefix("--replay=") if argument.startswith("--replay=") else argument
        rewritten.append(f"replay='{name}'" if waiting or name != argument else argument)
        waiting = False
    return rewritten


def main() -> None:
    """Run the command."""
    sys.argv[1:] = replay_argument(sys.argv[1:])
    command()


command = entry("sample")(run)

if __name__ == "__main__":
    main()
