"""`cami2v sample`: images or clips + captions + trajectories -> videos, a grid of them, or an earlier video again."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from cami2v.diffusion.sampler import Sampler
from cami2v.encoders.base import DepthEstimator
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.inference.image_clip import choose_trajectory, read_image
from cami2v.inference.output import read_text
from cami2v.inference.pipeline import Pipeline
from cami2v.inference.record import Record, frames_sha256
from cami2v.inference.request import Request
from cami2v.inference.sampler_settings import SamplerSettings
from cami2v.inference.scene import Depth, framed_depth
from cami2v.inference.settings import Picture, open_picture
from cami2v.trajectories.trajectory import Trajectory, scaled
from cami2v.trajectories.warp import load_depth
from launch.compose import entry, instantiate_part, settings
from launch.depth_network import NetworkSettings, network_depth
from launch.load_pipeline import load, load_recorded
from launch.sample_clips import ClipsOfShards, FilmedClip
from launch.sample_jobs import OWN, Job, JobRow, jobs_of, jobs_of_clips
from launch.sample_output import Frames, label, write_grid, write_video
from launch.sample_settings import FOR_THE_PIPELINE, SampleSettings

logger = logging.getLogger(__name__)

TRUTH = "true video"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One video to make."""

    job: Job
    request: Request
    picture: Picture
    depth: Depth | None
    truth: Frames | None


def run(config: DictConfig) -> None:
    """Sample what is asked for; inputs are checked before a model is built."""
    own = {key: config[key] for key in SampleSettings.__dataclass_fields__}
    chosen = settings(DictConfig(own), SampleSettings, "sample")
    sampler: Sampler | None = instantiate_part(config.sampler, "sampler") if config.get("sampler") else None
    if chosen.replay is not None:
        replay(chosen, chosen.replay)
        return
    network: DepthEstimator | None = None
    if config.get("depth"):
        if chosen.noise_shaping is None:
            raise ValueError("depth: only noise_shaping uses a depth network; set noise_shaping=900 as well")
        network = network_depth(
            config.depth, NetworkSettings(depth_weights=chosen.depth_weights, device="auto")
        ).network
    sample(chosen, None if sampler is None else SamplerSettings.of(sampler), network)


def sample(
    chosen: SampleSettings, sampler: SamplerSettings | None = None, depth_network: DepthEstimator | None = None
) -> list[Path]:
    """Make every job with every method and write videos, plots and grids; return the videos' paths.

    `sampler` and `depth_network` take the place of the models' own. Raises ValueError for an unreadable image, an
    unknown trajectory, a checkpoint that does not load, or a camera that changes nothing.
    """
    methods = _methods(chosen)
    shards, jobs = _jobs(chosen)
    grids: dict[str, dict[tuple[str, str], Frames]] = {job.name: {} for job in jobs}
    written = []
    for method, checkpoint in methods.items():
        pipeline = _pipeline(chosen, checkpoint, sampler, depth_network)
        filmed = {} if shards is None else _read(chosen, shards, pipeline)
        planned = [made for job in jobs for made in _planned(chosen, pipeline, job, filmed.get(job.name))]
        first = planned[0]
        pipeline.check_camera(
            pipeline.clip(first.request, first.picture), guards=chosen.guards, source=f"checkpoint={checkpoint}"
        )
        steps = sum(pipeline.steps(each.request) for each in planned)
        with tqdm(total=steps, desc=method or "denoising", disable=not sys.stderr.isatty()) as bar:
            for each in planned:
                # One by one: a batch would change the last digits, and a replay makes one video.
                (made,) = pipeline.generate(
                    [each.request], [each.picture], depths=[each.depth], on_progress=lambda _: bar.update()
                )
                written.append(write_video(chosen, pipeline, made, _name(method, each), each.truth))
                row = f"{method} seed {each.request.seed}" if method else f"seed {each.request.seed}"
                cells = grids[each.job.name]
                if each.truth is not None:
                    cells[row, TRUTH] = each.truth
                cells[row, label(each.request)] = made.frames
        del pipeline
    for name, cells in grids.items():
        if chosen.grid and len(cells) > 1:
            write_grid(chosen, name, cells)
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
    pipeline = Pipeline(
        source,
        precision=request.precision,
        offload=chosen.offload,
        device_map=chosen.device_map,
        compile=chosen.compile or request.compile,
        compile_mode=chosen.compile_mode,
    )
    (made,) = pipeline.generate([request], [picture], depths=[record.depth_map()])
    written = write_video(chosen, pipeline, made, f"{video.stem}-replay")
    if frames_sha256(made.frames) == record.frames_sha256:
        logger.info("%s: the frames are identical", written)
    else:
        here = pipeline.facts().constant["versions"]
        logger.warning("%s: the frames DIFFER; made with %s, here %s", written, dict(request.versions), here)
    return written


def _jobs(chosen: SampleSettings) -> tuple[ClipsOfShards | None, list[Job]]:
    """List what to make, and where clips come from. Raises ValueError for what is not there or cannot be read."""
    template = JobRow(
        image=None, caption=chosen.caption, negative_caption=chosen.negative_caption, trajectory=chosen.trajectory,
        extent=chosen.extent, seed=chosen.seed, depth_map=chosen.depth_map,
    )  # fmt: skip
    shards: ClipsOfShards | None = None
    if chosen.data.shards is None:
        jobs = jobs_of(chosen.image, chosen.jobs, template)
    elif chosen.image is None and chosen.jobs is None:
        shards = ClipsOfShards(chosen.data.shards, chosen.split, chosen.clips)
        jobs = jobs_of_clips(shards.names, template)
    else:
        raise ValueError("data.shards, image, jobs: got several; images come from one of them")
    for job in jobs:
        if job.image is not None:
            read_image(job.image)
        if job.depth_map is not None:
            load_depth(job.depth_map)
        for trajectory in job.trajectory:
            if trajectory != OWN:
                choose_trajectory(trajectory, frames=2, extent=job.extent)
    return shards, jobs


def _read(chosen: SampleSettings, shards: ClipsOfShards, pipeline: Pipeline) -> dict[str, FilmedClip]:
    return shards.read(
        pipeline.source.defaults,
        frames=chosen.frames,
        resolution=chosen.resolution,
        frame_stride=chosen.frame_stride,
        condition_frame=chosen.condition_frame,
    )


def _methods(chosen: SampleSettings) -> dict[str, str | Sequence[str]]:
    """Return checkpoints by label; a single one has none."""
    if (chosen.checkpoint is None) == (chosen.methods is None):
        given = "neither" if chosen.checkpoint is None else "both"
        raise ValueError(
            f"checkpoint and methods: got {given}; give checkpoint=<run folder, exported folder or released files>, or "
            "several to compare: methods='{first: <...>, second: <...>}'"
        )
    return {"": chosen.checkpoint} if chosen.checkpoint is not None else dict(chosen.methods or {})


def _pipeline(
    chosen: SampleSettings,
    checkpoint: str | Sequence[str],
    sampler: SamplerSettings | None,
    depth_network: DepthEstimator | None,
) -> Pipeline:
    source = load(
        checkpoint,
        experiment=chosen.from_experiment,
        overrides=chosen.overrides,
        base=chosen.base,
        weights=chosen.weights,
        attention=chosen.attention,
        load_report=chosen.load_report,
    )
    return Pipeline(
        source,
        precision=chosen.precision,
        offload=chosen.offload,
        device_map=chosen.device_map,
        compile=chosen.compile,
        compile_mode=chosen.compile_mode,
        sampler=sampler,
        depth_network=depth_network,
    )


def _planned(chosen: SampleSettings, pipeline: Pipeline, job: Job, clip: FilmedClip | None) -> Iterator[Planned]:
    """Write down the videos of a job; raises ValueError for what the model cannot do."""
    if clip is None:
        assert job.image is not None
        picture = open_picture(job.image)
    else:
        picture = clip.image
    shared = {key: getattr(chosen, key) for key in FOR_THE_PIPELINE}
    if clip is not None:
        shared |= {"frame_stride": clip.frame_stride, "told_frames_per_second": clip.frames_per_second}
    for trajectory in job.trajectory:
        own = clip is not None and trajectory == OWN
        requests = pipeline.requests(
            [picture],
            **shared,
            caption=job.caption or (clip.caption if clip is not None else ""),
            negative_caption=job.negative_caption,
            extent=job.extent,
            trajectory=_own_path(pipeline, chosen, clip) if clip is not None and own else trajectory,
            seed=list(job.seed),
        )
        for request in requests:
            request = dataclasses.replace(request, trajectory=OWN) if own else request
            yield Planned(
                job=job,
                request=request,
                picture=picture[1],
                depth=_depth(pipeline, job, request, picture[1], clip),
                truth=None if clip is None else clip.truth,
            )


def _own_path(pipeline: Pipeline, chosen: SampleSettings, clip: FilmedClip) -> Trajectory:
    """Return a clip's cameras; with `metres_per_unit` in metres, as the pipeline then wants them."""
    in_metres = pipeline.source.defaults.scale_policy == ScalePolicy.METRIC
    return clip.path if chosen.metres_per_unit is None or in_metres else scaled(clip.path, chosen.metres_per_unit)


def _depth(pipeline: Pipeline, job: Job, request: Request, picture: Picture, clip: FilmedClip | None) -> Depth | None:
    """Return the depth of a job's map as the pipeline wants it; None where there is no map, or it is not needed."""
    if job.depth_map is None or request.noise_shaping is None:
        return None
    if clip is None:
        return pipeline.scene_depth(request, picture, job.depth_map)
    # A clip's picture is cropped already, its map is of the whole frame.
    depth = load_depth(job.depth_map)
    return framed_depth(depth, (depth.shape[0], depth.shape[1]), (request.height, request.width))


def _name(method: str, planned: Planned) -> str:
    parts = [method, planned.job.name, label(planned.request), f"seed{planned.request.seed}"]
    return "-".join(part.replace("/", "_") for part in parts if part)


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
