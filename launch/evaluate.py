"""`cami2v evaluate`: generate for a split, measure camera paths, report. Under torchrun, generation is spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from omegaconf import DictConfig
from tqdm import tqdm

from cami2v.batch import ClipBatch
from cami2v.camera_control.interventions import Trajectory
from cami2v.camera_control.liveness import GuardSettings, check_camera, reason_to_skip
from cami2v.evaluation.camera_effect import Record, measured, not_measured
from cami2v.evaluation.folder import EvaluationFolder
from cami2v.evaluation.generate import Animate, write_generated, write_ground_truth
from cami2v.evaluation.measure import measure_clips, open_jobs
from cami2v.evaluation.measures.base import Measure
from cami2v.evaluation.report import report
from cami2v.file_hash import file_sha256
from cami2v.model import VideoDiffusion
from data_pipeline.loader import ClipLoader
from launch.compose import entry, instantiate_part, plain, settings

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
    stages: Sequence[Stage]

    def validate(self) -> None:
        """Raise ValueError for a number out of range."""
        for name, value in (("clips", self.clips), ("processes", self.processes)):
            if value is not None and value < 1:
                raise ValueError(f"evaluation.{name}={value}: must be at least 1")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"evaluation.crf={self.crf}: must be between 0 (lossless) and 51")

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
    measures = _measures(config)
    folder = EvaluationFolder(_output(config))
    state = PartialState()
    if "generate" in evaluation.stages:
        _generate(config, evaluation, folder, state)
    # Measuring takes one machine's cores, whatever the number of processes that generated.
    if not state.is_main_process:
        return
    if "measure" in evaluation.stages:
        _measure(folder, measures, evaluation)
    if "report" in evaluation.stages:
        print(report(folder, measures))
        print(folder.root / "report.md")


def _generate(
    config: DictConfig, evaluation: EvaluationSettings, folder: EvaluationFolder, state: PartialState
) -> None:
    checkpoint = _load(config) if config.checkpoint is not None else None
    if checkpoint is None and evaluation.interventions:
        raise ValueError("evaluation.interventions=true: needs a model to intervene on, set checkpoint=<run folder>")
    data = plain(config.data, "data")
    defaults = checkpoint.data if checkpoint else plain(config.without_checkpoint, "without_checkpoint")
    data = {**defaults, **{key: value for key, value in data.items() if value is not None}}
    loader: ClipLoader = instantiate_part(data, "data")
    effect = _camera_effect(config, checkpoint, loader) if checkpoint else None
    if state.is_main_process:
        folder.claim(
            {
                "shards": str(loader.folder.resolve()),
                "manifest_sha256": file_sha256(loader.folder / "manifest.json"),
                **{key: value for key, value in data.items() if key not in UNSEEN_IN_RESULTS},
                "clips": evaluation.clips or loader.num_samples,
                "seed": config.seed,
                "crf": evaluation.crf,
                "checkpoint": checkpoint.identity if checkpoint else None,
            }
        )
        if effect is not None:
            folder.record_camera_effect(effect)
    state.wait_for_everyone()
    batches = _batches(loader, config.seed, evaluation.clips, state)
    write_ground_truth(folder, batches("true videos"), crf=evaluation.crf)
    # Shuffled trajectories are read from what all processes have written.
    state.wait_for_everyone()
    if checkpoint:
        moved = (batch.to(checkpoint.device) for batch in batches("generated videos"))
        write_generated(folder, moved, checkpoint.animate, trajectories=evaluation.trajectories, crf=evaluation.crf)
    state.wait_for_everyone()


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


def _batches(
    loader: ClipLoader, seed: int, clips: int | None, state: PartialState
) -> Callable[[str], Iterator[ClipBatch]]:
    def batches(title: str) -> Iterator[ClipBatch]:
        fixed = loader.fixed(count=clips, rank=state.process_index, world_size=state.num_processes, seed=seed)
        mine = range(state.process_index, clips or loader.num_samples, state.num_processes)
        return iter(tqdm(fixed, desc=title, total=len(mine), disable=not state.is_main_process))

    return batches


def _measures(config: DictConfig) -> list[Measure]:
    """Return the measures that are not null. Raises ValueError where there are none."""
    nodes = {name: node for name, node in config.evaluation.measures.items() if node is not None}
    if not nodes:
        raise ValueError("evaluation.measures: all are null, nothing would be measured; leave at least one")
    return [instantiate_part(node, f"evaluation.measures.{name}") for name, node in nodes.items()]


def _measure(folder: EvaluationFolder, measures: Sequence[Measure], evaluation: EvaluationSettings) -> None:
    for measure in measures:
        jobs = open_jobs(folder, measure)
        with tqdm(desc=f"videos, {measure.name}", total=len(jobs)) as progress:
            for _ in measure_clips(folder, measure, jobs, processes=evaluation.processes):
                progress.update()


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
