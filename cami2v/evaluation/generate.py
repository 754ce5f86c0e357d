"""First stage: ground-truth and generated videos with their cameras, as files. Whatever exists is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from jaxtyping import Float
from torch import Tensor

from cami2v.batch import Cameras, ClipBatch
from cami2v.camera_control.interventions import Trajectory, camera_interventions
from cami2v.evaluation.folder import (
    GENERATED,
    GROUND_TRUTH,
    SHUFFLED,
    STATIONARY,
    EvaluationFolder,
    RequestedCameras,
)
from cami2v.inference.clip_video import to_frames
from cami2v.video import write_mp4

Animate = Callable[[ClipBatch], Float[Tensor, "batch 3 frames height width"]]

VIDEO_SETS: dict[Trajectory, str] = {
    "right": GENERATED,
    "stationary": STATIONARY,
    "shuffled": SHUFFLED,
}


def write_ground_truth(
    folder: EvaluationFolder, batches: Iterable[ClipBatch], *, crf: int, metric: bool = False
) -> None:
    """Store true videos and cameras. Both kinds of video are compressed alike, as in the published pipeline.

    `metric`: the cameras' translation scale takes them to metres.
    """
    for batch in batches:
        for index, clip_id in enumerate(batch.clip_ids):
            if not folder.video(GROUND_TRUTH, clip_id).exists():
                _write_video(folder, GROUND_TRUTH, batch, index, batch.video[index], crf)
            if not folder.cameras(clip_id).exists():
                folder.write_cameras(clip_id, _requested(batch, index, metric))


def write_generated(
    folder: EvaluationFolder,
    batches: Iterable[ClipBatch],
    animate: Animate,
    *,
    trajectories: Sequence[Trajectory],
    crf: int,
    other_cameras: Callable[[str], Cameras] | None = None,
) -> None:
    """Generate the videos that are missing.

    `other_cameras` gives the clip of an id another clip's trajectory, for `shuffled`. The random numbers of a clip come
    from its own seed: neither restarts nor the number of processes change a video.
    """
    for batch in batches:
        wanted = [trajectory for trajectory in trajectories if _missing(folder, batch, trajectory)]
        if not wanted:
            continue
        if len(batch.clip_ids) != 1:
            raise ValueError(f"a batch of {len(batch.clip_ids)} clips: generation for evaluation takes them one by one")
        versions: dict[Trajectory, ClipBatch] = {"right": batch}
        if wanted != ["right"]:
            others = None if other_cameras is None else other_cameras(batch.clip_ids[0]).to(batch.video.device)
            versions = camera_interventions(batch, others=others)
        for trajectory in wanted:
            video = animate(versions[trajectory])
            _write_video(folder, VIDEO_SETS[trajectory], batch, 0, video[0], crf)


def _missing(folder: EvaluationFolder, batch: ClipBatch, trajectory: Trajectory) -> bool:
    return any(not folder.video(VIDEO_SETS[trajectory], clip_id).exists() for clip_id in batch.clip_ids)


def next_clip(clip_ids: Sequence[str], clip_id: str) -> str:
    """Return the clip after this one in the list of all, from which `shuffled` takes the trajectory.

    Raises ValueError where there is no other.
    """
    if len(clip_ids) < 2:
        raise ValueError(
            "evaluation.interventions=true with one clip: there is no other trajectory, evaluate two or more"
        )
    return clip_ids[(clip_ids.index(clip_id) + 1) % len(clip_ids)]


def _requested(batch: ClipBatch, index: int, metric: bool) -> RequestedCameras:
    cameras = batch.cameras
    return RequestedCameras(
        world_to_camera=cameras.world_to_camera[index].cpu().numpy(),
        intrinsics_pixels=cameras.intrinsics_pixels[index].cpu().numpy(),
        translation_scale=cameras.translation_scale[index].cpu().numpy(),
        height=cameras.height,
        width=cameras.width,
        metric=metric,
    )


def _write_video(
    folder: EvaluationFolder,
    video_set: str,
    batch: ClipBatch,
    index: int,
    video: Float[Tensor, "3 frames height width"],
    crf: int,
) -> None:
    path = folder.video(video_set, batch.clip_ids[index])
    # Players know yuv420p best, but it halves both sides.
    odd = bool(video.shape[-2] % 2 or video.shape[-1] % 2)
    write_mp4(path, to_frames(video), float(batch.frames_per_second[index]), crf=crf, full_chroma=odd)
