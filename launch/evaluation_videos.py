"""The first stage of `cami2v evaluate`: true videos of a split, and generated ones where there is a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from tqdm import tqdm

from cami2v.batch import Cameras
from cami2v.camera_control.liveness import GuardSettings, reason_to_skip
from cami2v.evaluation.camera_effect import Record, measured, not_measured
from cami2v.evaluation.folder import GENERATE, GROUND_TRUTH, EvaluationFolder
from cami2v.evaluation.generate import VIDEO_SETS, next_clip, write_generated, write_ground_truth
from cami2v.evaluation.machine import generating_machine
from cami2v.file_hash import file_sha256
from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline.array_tasks import Share
from data_pipeline.chosen_clips import ChosenClips
from data_pipeline.evaluation_manifest import EvaluationManifest, with_seeds
from data_pipeline.loader import ClipLoader
from data_pipeline.stages import stack_cameras
from launch.compose import instantiate_part, plain, settings
from launch.evaluation_settings import EvaluationSettings, given_manifest
from launch.published_metadata import published_manifest, read_published_metadata

if TYPE_CHECKING:
    from launch.evaluated_model import EvaluatedModel

UNSEEN_IN_RESULTS = (
    "_target_", "shards", "num_workers", "shuffle_window_shards", "shared_shards", "max_skip_rate", "cache_folder",
    "cache_gigabytes", "timeout_seconds", "frozen_split",
)  # fmt: skip
"""Keys of `data` that change no clip of an evaluation; the shard set counts by its manifest's content."""


def generate(config: DictConfig, evaluation: EvaluationSettings, folder: EvaluationFolder, share: Share) -> None:
    """Make the videos of this share that are missing. Raises ValueError, before it writes, for what cannot be made."""
    checkpoint: EvaluatedModel | None = None
    if config.checkpoint is not None:
        # Imported here: judging true videos needs no model.
        from launch.evaluated_model import load_evaluated

        checkpoint = load_evaluated(config)
    if checkpoint is None and evaluation.interventions:
        raise ValueError("evaluation.interventions=true: needs a model to intervene on, set checkpoint=<run folder>")
    data = plain(config.data, "data")
    defaults = checkpoint.data if checkpoint else plain(config.without_checkpoint, "without_checkpoint")
    given = given_manifest(evaluation)
    if given is not None:
        defaults = _of_manifest(given, evaluation, defaults, data, trained=checkpoint is not None)
    data = {**defaults, **{key: value for key, value in data.items() if value is not None}}
    if checkpoint:
        checkpoint.plan(data["frames"])
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
    if checkpoint and missing:
        folder.record_machine(GENERATE, generating_machine())
    batches = loader.chosen_batches(chosen, set(missing))
    for batch in tqdm(batches, desc="videos", total=len(missing), disable=share.task > 0):
        write_ground_truth(folder, [batch], crf=evaluation.crf, metric=data["scale_policy"] == ScalePolicy.METRIC)
        if checkpoint:
            write_generated(
                folder, [batch], checkpoint.animate,
                trajectories=trajectories, crf=evaluation.crf, other_cameras=others,
            )  # fmt: skip


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


def _camera_effect(config: DictConfig, checkpoint: EvaluatedModel, loader: ClipLoader) -> Record:
    """Look whether the trajectory changes what the model predicts for the first clip; raise ValueError if nothing.

    Every process does, before anything is written: then all of them stop.
    """
    guards = settings(config.guards, GuardSettings, "guards")
    count = min(2, loader.num_samples)
    clips = loader.fixed(count=count, rank=0, world_size=1, seed=config.seed)
    first, *rest = clips
    reason = reason_to_skip(checkpoint.pipeline.model, first, guards)
    others = rest[0].cameras if rest else None
    effect = checkpoint.pipeline.check_camera(
        first, others=others, guards=guards, source=f"checkpoint={config.checkpoint}"
    )
    if effect is None:
        return not_measured(str(reason))
    return measured(effect, clip_id=first.clip_ids[0], shuffled_with=rest[0].clip_ids[0] if rest else None)
