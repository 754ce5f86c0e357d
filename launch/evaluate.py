"""`cami2v evaluate`: generate for a split, judge the videos, report; shared by ranks and by tasks of a job array."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from cami2v.batch import Cameras, ClipBatch
from cami2v.camera_control.interventions import Trajectory
from cami2v.camera_control.liveness import GuardSettings, check_camera, reason_to_skip
from cami2v.evaluation.bootstrap import Bootstrap
from cami2v.evaluation.camera_effect import Record, measured, not_measured
from cami2v.evaluation.folder import GROUND_TRUTH, EvaluationFolder
from cami2v.evaluation.generate import VIDEO_SETS, Animate, next_clip, write_generated, write_ground_truth
from cami2v.evaluation.measure import count_open, measure_clips, open_jobs
from cami2v.evaluation.measures.base import Measure
from cami2v.evaluation.report import ReportOptions, report
from cami2v.evaluation.wandb_tables import WandbSettings
from cami2v.file_hash import file_sha256
from cami2v.model import VideoDiffusion
from data_pipeline.array_tasks import Share, share_of
from data_pipeline.chosen_clips import ChosenClips
from data_pipeline.evaluation_manifest import EvaluationManifest, read_evaluation_manifest, with_seeds
from data_pipeline.file_locks import passing_lock
from data_pipeline.loader import ClipLoader
from data_pipeline.stages import stack_cameras
from launch.compose import entry, instantiate_part, plain, settings
from launch.made_videos import MadeVideos, MadeVideosSettings
from launch.published_metadata import SUFFIXES, published_manifest, read_published_metadata

Stage = Literal["generate", "measure", "report"]

UNSEEN_IN_RESULTS = (
    "_target_", "shards", "num_workers", "shuffle_window_shards", "shared_shards", "max_skip_rate", "cache_folder",
    "cache_gigabytes", "timeout_seconds", "frozen_split",
)  # fmt: skip
"""Keys of `data` that change no clip of an evaluation; the shard set counts by its manifest's content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The keys of `evaluation`. `estimator` and `trials` are there for the measures to refer to."""

    estimator: Any
    measures: Mapping[str, Any]
    clips: int | None
    trials: int
    processes: int
    interventions: bool
    crf: int
    bootstrap: Mapping[str, Any]
    compatibility: Literal["cami2v"] | None
    clip_pages: bool
    wandb: Mapping[str, Any]
    stages: Sequence[Stage]
    task: int | None
    tasks: int | None
    manifest: str | None

    def validate(self) -> None:
        """Raise ValueError for a number out of range."""
        for name, value in (("clips", self.clips), ("processes", self.processes)):
            if value is not None and value < 1:
                raise ValueError(f"evaluation.{name}={value}: must be at least 1")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"evaluation.crf={self.crf}: must be between 0 (lossless) and 51")

    @property
    def is_published(self) -> bool:
        """Whether the manifest is published metadata, which says clips and captions but no frames."""
        return self.manifest is not None and Path(self.manifest).suffix in SUFFIXES

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """Return the trajectories to generate under."""
        return ("right", "stationary", "shuffled") if self.interventions else ("right",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a checkpoint contributes."""

    model: VideoDiffusion
    animate: Animate
    data: dict[str, Any]
    identity: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device


def run(config: DictConfig) -> None:
    """Run the stages that `evaluation.stages` names; the measured tables go to the terminal and to report.md."""
    evaluation = settings(config.evaluation, EvaluationSettings, "evaluation")
    share = share_of_process(evaluation.task, evaluation.tasks)
    measures = _measures(config)
    options = _report_options(evaluation, measures)
    folder = EvaluationFolder(_output(config))
    if {"generate", "measure"} & set(evaluation.stages):
        for measure in measures:
            measure.prepare()
    if "generate" in evaluation.stages:
        if config.videos is None:
            _generate(config, evaluation, folder, share)
        else:
            _place(config, evaluation, folder, share)
    if "measure" in evaluation.stages:
        _measure(folder, measures, evaluation, share)
    if "report" in evaluation.stages:
        _report(folder, measures, options, share)


def share_of_process(task: int | None, tasks: int | None, environment: Mapping[str, str] = os.environ) -> Share:
    """Return the share of this process among the ranks of all tasks; a rank sees one GPU, its own.

    Ranks never wait for each other: what they share is the folder. So none of them can time out on a slower one.
    """
    given = share_of(task, tasks, environment, settings="evaluation")
    rank, ranks = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return Share(task=given.task * ranks + rank, tasks=given.tasks * ranks)


def _place(config: DictConfig, evaluation: EvaluationSettings, folder: EvaluationFolder, share: Share) -> None:
    """Take videos that exist already."""
    if config.checkpoint is not None or evaluation.interventions:
        raise ValueError("videos=...: takes videos as they are; leave out checkpoint and evaluation.interventions")
    if evaluation.is_published:
        raise ValueError(
            f"evaluation.manifest={evaluation.manifest}: says no frames; evaluate the shards by it and give the "
            "manifest.json of that evaluation"
        )
    keys = {key: config[key] for key in MadeVideosSettings.__dataclass_fields__}
    made = MadeVideos(settings(DictConfig(keys), MadeVideosSettings, "evaluate"), _given(evaluation), evaluation.clips)
    made.place(folder, share)


def _generate(config: DictConfig, evaluation: EvaluationSettings, folder: EvaluationFolder, share: Share) -> None:
    checkpoint = _load(config) if config.checkpoint is not None else None
    if checkpoint is None and evaluation.interventions:
        raise ValueError("evaluation.interventions=true: needs a model to intervene on, set checkpoint=<run folder>")
    data = plain(config.data, "data")
    defaults = checkpoint.data if checkpoint else plain(config.without_checkpoint, "without_checkpoint")
    given = _given(evaluation)
    if given is not None:
        defaults = _of_manifest(given, evaluation, defaults, data, trained=checkpoint is not None)
    data = {**defaults, **{key: value for key, value in data.items() if value is not None}}
    loader: ClipLoader = instantiate_part(data, "data")
    manifest, chosen = _chosen_clips(config, evaluation, loader, given)
    effect = _camera_effect(config, checkpoint, loader) if checkpoint else None
    identity = {
        "shards": str(loader.folder.resolve()),
        "shards_sha256": file_sha256(loader.folder / "manifest.json"),
        "manifest_sha256": manifest.sha256,
        **{key: value for key, value in data.items() if key not in UNSEEN_IN_RESULTS},
        **({"seed": config.seed} if given is None else {"frame_stride": "manifest", "seed": "manifest"}),
        "clips": len(manifest.clips),
        "crf": evaluation.crf,
        "checkpoint": checkpoint.identity if checkpoint else None,
    }
    folder.claim(identity, manifest.as_json())
    if effect is not None and share.task == 0:
        folder.record_camera_effect(effect)
    others = partial(_next_cameras, manifest, chosen)
    trajectories = evaluation.trajectories if checkpoint else ()
    video_sets = [GROUND_TRUTH, *(VIDEO_SETS[trajectory] for trajectory in trajectories)]
    missing = [clip_id for clip_id in share.of(manifest.clip_ids) if _is_missing(folder, clip_id, video_sets)]
    batches = loader.chosen_batches(chosen, set(missing))
    for batch in tqdm(batches, desc="videos", total=len(missing), disable=share.task > 0):
        write_ground_truth(folder, [batch], crf=evaluation.crf)
        if checkpoint:
            moved = batch.to(checkpoint.device)
            write_generated(
                folder, [moved], checkpoint.animate,
                trajectories=trajectories, crf=evaluation.crf, other_cameras=others,
            )  # fmt: skip


def _given(evaluation: EvaluationSettings) -> EvaluationManifest | None:
    """Read evaluation.manifest, if one is given. Raises ValueError where part of it would be taken."""
    if evaluation.manifest is None or evaluation.is_published:
        return None
    if evaluation.clips is not None:
        raise ValueError(
            f"evaluation.clips={evaluation.clips}: evaluation.manifest={evaluation.manifest} says which clips; some of "
            "them are another evaluation, so leave one of the two out"
        )
    return read_evaluation_manifest(Path(evaluation.manifest).expanduser(), "evaluation.manifest")


def _chosen_clips(
    config: DictConfig, evaluation: EvaluationSettings, loader: ClipLoader, given: EvaluationManifest | None
) -> tuple[EvaluationManifest, ChosenClips]:
    """Return which clips are evaluated, found in the shards. Raises ValueError for what is not there as it should."""
    source = f"evaluation.manifest={evaluation.manifest}"
    if given is not None:
        manifest = with_seeds(given, config.seed)
    elif evaluation.is_published:
        published = read_published_metadata(Path(str(evaluation.manifest)).expanduser())
        manifest = with_seeds(published_manifest(published, loader, source, evaluation.clips), config.seed)
    else:
        manifest = loader.first_clips(count=evaluation.clips, seed=config.seed)
    chosen = loader.chosen(manifest.clips, source)
    if evaluation.manifest is not None:
        chosen.check()
    return manifest, chosen


def _of_manifest(
    given: EvaluationManifest,
    evaluation: EvaluationSettings,
    defaults: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    trained: bool,
) -> dict[str, Any]:
    """Return the defaults of `data` with the manifest's frames. Raises ValueError where others are asked for."""
    where, frames = f"evaluation.manifest={evaluation.manifest}", given.frames()
    if frames is None:
        raise ValueError(f"{where}: its clips have different numbers of frames; a model takes one number")
    if data["frame_stride"] is not None:
        raise ValueError(f"data.frame_stride={data['frame_stride']}: {where} says which frames; leave it out")
    wanted = data["frames"] if data["frames"] is not None else defaults["frames"] if trained else frames
    if wanted != frames:
        raise ValueError(f"{where}: clips of {frames} frames, but data.frames={wanted}; choose a manifest of {wanted}")
    return {**defaults, "frames": frames}


def _next_cameras(manifest: EvaluationManifest, chosen: ChosenClips, clip_id: str) -> Cameras:
    """Return the cameras of the following clip, from the shards: whoever writes that clip may not have come to it."""
    following = next_clip(manifest.clip_ids, clip_id)
    return stack_cameras([chosen.cameras(manifest.clips[manifest.clip_ids.index(following)])])


def _is_missing(folder: EvaluationFolder, clip_id: str, video_sets: Sequence[str]) -> bool:
    files = [folder.cameras(clip_id), *(folder.video(name, clip_id) for name in video_sets)]
    return not all(path.exists() for path in files)


def _camera_effect(config: DictConfig, checkpoint: Run, loader: ClipLoader) -> Record:
    """Look whether the trajectory changes what the model predicts for the first clip; raise ValueError if nothing.

    Every process does, before anything is written: then all of them stop.
    """
    guards = settings(config.guards, GuardSettings, "guards")
    count = min(2, loader.num_samples)
    clips = loader.fixed(count=count, rank=0, world_size=1, seed=config.seed)
    first, *rest = [clip.to(checkpoint.device) for clip in clips]
    reason = reason_to_skip(checkpoint.model, first, guards)
    others = rest[0].cameras if rest else None
    effect = check_camera(
        checkpoint.model, first, others=others, guards=guards, source=f"checkpoint={config.checkpoint}"
    )
    if effect is None:
        return not_measured(str(reason))
    return measured(effect, clip_id=first.clip_ids[0], shuffled_with=rest[0].clip_ids[0] if rest else None)


def _measures(config: DictConfig) -> list[Measure]:
    """Return the measures that are not null. Raises ValueError where there are none."""
    nodes = {name: node for name, node in config.evaluation.measures.items() if node is not None}
    if not nodes:
        raise ValueError("evaluation.measures: all are null, nothing would be measured; leave at least one")
    return [instantiate_part(node, f"evaluation.measures.{name}") for name, node in nodes.items()]


def _measure(
    folder: EvaluationFolder, measures: Sequence[Measure], evaluation: EvaluationSettings, share: Share
) -> None:
    """Judge the clips whose videos this process makes, so that no other one has to be ready."""
    clip_ids = share.of(folder.clip_ids())
    for measure in measures:
        jobs = open_jobs(folder, measure, clip_ids)
        with tqdm(desc=f"videos, {measure.name}", total=len(jobs), disable=share.task > 0) as progress:
            for _ in measure_clips(folder, measure, jobs, processes=evaluation.processes):
                progress.update()


def _report_options(evaluation: EvaluationSettings, measures: Sequence[Measure]) -> ReportOptions:
    bootstrap = settings(evaluation.bootstrap, Bootstrap, "evaluation.bootstrap")
    options = ReportOptions(
        bootstrap=bootstrap,
        compatibility=evaluation.compatibility,
        clip_pages=evaluation.clip_pages,
        wandb=settings(evaluation.wandb, WandbSettings, "evaluation.wandb"),
    )
    options.check(measures)
    return options


def _report(folder: EvaluationFolder, measures: Sequence[Measure], options: ReportOptions, share: Share) -> None:
    """Report, if the other processes have measured their clips: whoever finishes last finds that they have."""
    if share.tasks > 1 and (left := count_open(folder, measures)):
        print(
            f"{folder.root}: share {share.task} of {share.tasks} is done, {left} measurements of others are not; the "
            "last one reports"
        )
        return
    with passing_lock(folder.root / ".report.lock", wait=True):
        print(report(folder, measures, options))
    print(folder.root / "report.html")
    print(folder.root / "report.md")


def _load(config: DictConfig) -> Run:
    # Imported here: judging true videos needs no model.
    from launch.load_model import Source, load_model

    keys = {key: config[key] for key in Source.__dataclass_fields__}
    loaded = load_model(settings(DictConfig(keys), Source, "evaluate"))
    sampler, sampler_node = loaded.sampler, loaded.config.sampler
    if config.get("sampler") is not None:
        sampler_node = config.sampler
        sampler = instantiate_part(sampler_node, "sampler")

    def animate(batch: ClipBatch) -> torch.Tensor:
        with torch.no_grad():
            return loaded.model.generate(batch, sampler)

    return Run(
        model=loaded.model,
        animate=animate,
        data=held_out_data(loaded.config),
        identity={**loaded.identity, "sampler": plain(sampler_node, "sampler")},
    )


def held_out_data(run_config: DictConfig) -> dict[str, Any]:
    """Return a run's data settings; its stride is that of its validation clips, where they have their own.

    A cache holds training clips; what is judged comes from the videos.
    """
    data = plain(run_config.data, "data")
    data.pop("cache", None)
    stride = data.pop("evaluation_frame_stride", None)
    return data if stride is None else {**data, "frame_stride": stride}


def _output(config: DictConfig) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    if config.videos is not None:
        made = config.videos if isinstance(config.videos, str) else next(iter(config.videos.values()))
        return Path(config.paths.runs) / "evaluate" / Path(made).expanduser().resolve().name
    if config.checkpoint is not None:
        # Imported here: judging true videos needs no model.
        from launch.starting_point import is_run, paths_of

        *_, last = paths_of(config.checkpoint)
        if config.from_experiment is None or is_run(last):
            return last / "evaluation" / (f"{config.split}-ema" if config.weights == "ema" else str(config.split))
        return Path(config.paths.runs) / "evaluate" / f"{last.stem}-{config.split}"
    shards = Path(plain(config.data, "data")["shards"]).expanduser().resolve().name
    return Path(config.paths.runs) / "evaluate" / f"{shards}-{config.split}"


main = entry("evaluate")(run)

if __name__ == "__main__":
    main()
