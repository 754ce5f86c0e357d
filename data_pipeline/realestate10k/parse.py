"""Parse RealEstate10K camera files, caption files and metric scales.

A camera file is a video address, then one line of 19 numbers per frame: timestamp in microseconds, fx fy cx cy divided
by image width and height, two zeros, and the row-major 3x4 world-to-camera matrix (Zhou et al. 2018, OpenCV axes). A
variant in use for training carries two more header lines: the video's path below the dataset's folder and a caption.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
from jaxtyping import Float64

from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.realestate10k.track import PoseTrack, check_track

_NUMBERS_PER_LINE = 19


def parse_pose_file(path: Path) -> PoseTrack:
    """Parse and check one camera file; raises BadClip with file and line."""
    lines = _lines(path)
    if not lines:
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path}: empty; expected a video address and a line per frame")
    headers = 1 if len(lines) > 1 and _looks_numeric(lines[1]) else 3
    if len(lines) <= headers:
        raise BadClip(
            Reason.POSE_FILE_MALFORMED,
            f"{path}: no line of {_NUMBERS_PER_LINE} numbers after line {headers}; expected one per frame",
        )
    rows = camera_rows(lines[headers:], path, headers + 1)
    track = PoseTrack(
        address=lines[0],
        source_id=source_id_of(lines[0], path),
        video_path=lines[1] if headers == 3 else None,
        caption=lines[2] if headers == 3 else None,
        timestamps_microseconds=np.rint(rows[:, 0]).astype(np.int64),
        intrinsics_normalized=np.ascontiguousarray(rows[:, 1:5]),
        world_to_camera=np.ascontiguousarray(rows[:, 7:].reshape(-1, 3, 4)),
    )
    check_track(track, lambda frame: f"{path} line {headers + 1 + frame}")
    return track


def camera_rows(lines: Sequence[str], path: Path, first: int) -> Float64[np.ndarray, "frames numbers"]:
    """Parse lines of 19 finite numbers, empty ones left out; `first` is the number of the first. Raises BadClip."""
    rows = [_row(line, path, number) for number, line in enumerate(lines, first) if line.strip()]
    if not rows:
        raise BadClip(
            Reason.POSE_FILE_MALFORMED, f"{path}: no line of {_NUMBERS_PER_LINE} numbers; expected one per frame"
        )
    return np.stack(rows)


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


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path}: not a text file") from error


def _looks_numeric(line: str) -> bool:
    first = line.split()[0]
    return first.lstrip("+-").replace(".", "", 1).isdigit()


def _row(line: str, path: Path, number: int) -> Float64[np.ndarray, " numbers"]:
    fields = line.split()
    if len(fields) != _NUMBERS_PER_LINE:
        raise BadClip(
            Reason.POSE_FILE_MALFORMED, f"{path} line {number}: {len(fields)} fields, expected {_NUMBERS_PER_LINE}"
        )
    try:
        row = np.array([float(value) for value in fields])
    except ValueError as error:
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path} line {number}: {error}") from error
    if not np.all(np.isfinite(row)):
        raise BadClip(Reason.POSE_NOT_FINITE, f"{path} line {number}: the camera has a NaN or infinite number")
    return row
