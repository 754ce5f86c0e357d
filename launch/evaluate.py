"""`cami2v evaluate`: generate for a split, judge the videos, report; shared by ranks and by tasks of a job array."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from cami2v.evaluation.bootstrap import Bootstrap
from cami2v.evaluation.folder import MEASURE, EvaluationFolder
from cami2v.evaluation.machine import measuring_machine
from cami2v.evaluation.measure import count_open, measure_clips, open_jobs
from cami2v.evaluation.measures.base import Measure
from cami2v.evaluation.report import ReportOptions, report
from cami2v.evaluation.wandb_tables import WandbSettings
from cami2v.file_hash import KnownHashes
from data_pipeline.array_tasks import Share, share_of
from data_pipeline.file_locks import passing_lock
from launch.compose import entry, instantiate_part, plain, settings
from launch.evaluation_depth import metric_measure
from launch.evaluation_settings import EvaluationSettings, given_manifest
from launch.evaluation_videos import generate
from launch.made_videos import MadeVideos, MadeVideosSettings


def run(config: DictConfig) -> None:
    """Run the stages that `evaluation.stages` names; the measured tables go to the terminal and to report.md."""
    evaluation = settings(config.evaluation, EvaluationSettings, "evaluation")
    share = share_of_process(evaluation.task, evaluation.tasks)
    measures = _measures(config, evaluation)
    options = _report_options(evaluation, measures)
    folder = EvaluationFolder(_output(config))
    if {"generate", "measure"} & set(evaluation.stages):
        for measure in measures:
            measure.prepare()
    if "generate" in evaluation.stages:
        if config.videos is None:
            generate(config, evaluation, folder, share)
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
    if config.cameras is None:
        raise ValueError(
            "cameras: not set; videos=<folder> needs cameras=<folder>, a camera file <clip>.txt for each video"
        )
    keys = {key: config[key] for key in MadeVideosSettings.__dataclass_fields__}
    made = MadeVideos(
        settings(DictConfig(keys), MadeVideosSettings, "evaluate"), given_manifest(evaluation), evaluation.clips
    )
    made.place(folder, share)


def _measures(config: DictConfig, evaluation: EvaluationSettings) -> list[Measure]:
    """Return the measures that are not null, and that of `depth`. Raises ValueError where there are none."""
    nodes = {name: node for name, node in config.evaluation.measures.items() if node is not None}
    if not nodes:
        raise ValueError("evaluation.measures: all are null, nothing would be measured; leave at least one")
    measures: list[Measure] = [instantiate_part(node, f"evaluation.measures.{name}") for name, node in nodes.items()]
    return [*measures, *metric_measure(config, evaluation, measures)]


def _measure(
    folder: EvaluationFolder, measures: Sequence[Measure], evaluation: EvaluationSettings, share: Share
) -> None:
    """Judge the clips whose videos this process makes, so that no other one has to be ready."""
    if not folder.clip_ids():
        raise ValueError(f"output={folder.root}: no evaluation there to measure; run the generate stage first")
    clip_ids, hashes = share.of(folder.clip_ids()), KnownHashes()
    for measure in measures:
        jobs = open_jobs(folder, measure, clip_ids, hashes)
        if jobs:
            folder.record_machine(MEASURE, measuring_machine())
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
