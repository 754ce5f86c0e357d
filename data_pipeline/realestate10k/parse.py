"""Parse RealEstate10K's side of a clip: camera files as tracks, caption files and metric scales."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
from jaxtyping import Float64

from cami2v.geometry.pose_files.realestate10k import parse
from data_pipeline.bad_clips import BadClip, Reason, pose_file_faults
from data_pipeline.realestate10k.track import PoseTrack, check_track


def parse_pose_file(path: Path) -> PoseTrack:
    """Parse and check one camera file; raises BadClip with file and line."""
    with pose_file_faults():
        content = parse(path)
    if len(content.header) not in (1, 3):
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path}: no header; expected a video address and a line per frame")
    track = PoseTrack(
        address=content.header[0],
        source_id=source_id_of(content.header[0], path),
        video_path=content.header[1] if len(content.header) == 3 else None,
        caption=content.header[2] if len(content.header) == 3 else None,
        timestamps_microseconds=np.rint(content.rows[:, 0]).astype(np.int64),
        intrinsics_normalized=content.intrinsics_normalized,
        world_to_camera=content.world_to_camera,
    )
    check_track(track, lambda frame: f"{path} line {content.lines[frame]}")
    return track


def source_id_of(address: str, path: Path) -> str:
    """Return what identifies the source video: YouTube's id, otherwise the last part of the address without suffix."""
    parsed = urlparse(address)
    query = parse_qs(parsed.query)
    source_id = query["v"][0] if "v" in query else Path(parsed.path or parsed.netloc).stem
    if not source_id:
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path} line 1: {address!r} is not the address of a video")
    return source_id


def first_line(path: Path) -> str:
    """Return a camera file's address without parsing the rest."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().strip()


def parse_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a caption file like `read_caption_file`, keyed by clip id."""
    return {Path(name).stem: texts for name, texts in read_caption_file(path).items()}


def read_caption_file(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a caption file {"<clip>.mp4": [caption, ...]} (or a single string each), keyed by the names in it.

    Raises ValueError for anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON caption file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected {{"<clip>.mp4": ["caption", ...]}}, got a {type(content).__name__}')
    captions = {}
    for name, value in content.items():
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}: captions of {name!r} must be a list of strings, got {value!r:.80}")
        captions[name] = tuple(text.strip() for text in texts if text.strip())
    return captions


def parse_metric_scale(value: object, frames: int, clip_id: str) -> Float64[np.ndarray, " frames"]:
    """Return metres per pose unit for every frame from a number or one number per frame."""
    try:
        scale = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadClip(Reason.METRIC_SCALE_MALFORMED, f"metric scale of clip {clip_id}: not numbers") from error
    if scale.shape not in ((), (frames,)) or not np.all(np.isfinite(scale)) or not np.all(scale > 0):
        raise BadClip(
            Reason.METRIC_SCALE_MALFORMED,
            f"metric scale of clip {clip_id}: got shape {scale.shape} with values like {np.ravel(scale)[:1]}; "
            f"expected one positive number, or one for each of {frames} frames",
        )
    return np.broadcast_to(scale, (frames,)).copy()
