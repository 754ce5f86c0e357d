"""Small RealEstate10K-like folders with real videos, made on the fly.

Frame k of clip number c is a flat grey of level 4 + 5 k with a band of level 20 c on top, so that a decoded frame
says which one it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cami2v.video import write_mp4
from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.pack import PackResult, PackSettings, pack
from data_pipeline.realestate10k.encode import PackedFormat

HEIGHT, WIDTH = 36, 64

READING = ReadSettings(layout="auto", frames_per_second=None, camera_axes=None, each_clip_is_a_source=False)

SETTINGS = PackSettings(
    reading=READING,
    frame_format=PackedFormat(
        short_side=360, codec="h264", crf=10, gop=4, b_frames=0, fast_decode=True, jpeg_quality=90
    ),
    scale_policy="relative",
    splits={"train": 0.75, "test": 0.25},
    split_lists={},
    on_unlisted_clip="stop",
    samples_per_shard=256,
    min_shards=4,
    min_frames=4,
    default_caption=None,
    on_bad_clip="stop",
    max_drop_rate=0.5,
    overwrite=False,
    seed=0,
    processes=1,
    task=None,
    tasks=1,
)


def grey_frames(clip: int, levels: Sequence[int], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    frames = np.zeros((len(levels), height, width, 3), np.uint8)
    for row, level in zip(frames, levels, strict=True):
        row[:] = 4 + 5 * level
        row[: height // 4] = 20 * clip
    return frames


def levels_of(video: np.ndarray) -> list[int]:
    """Read the frame numbers back from decoded frames [frames, height, width, 3]."""
    middle = video[:, video.shape[1] // 2 :].astype(float).mean(axis=(1, 2, 3))
    return [round((value - 4) / 5) for value in middle]


def camera(number: float, fx: float = 0.5, fy: float = 0.5 * WIDTH / HEIGHT) -> str:
    angle = 0.02 * number
    c, s = np.cos(angle), np.sin(angle)
    rows = [c, 0, s, 0.1 * number, 0, 1, 0, 0.02, -s, 0, c, 0.3]
    return " ".join(f"{value:.9f}" for value in [fx, fy, 0.5, 0.5, 0, 0, *rows])


def write_poses(
    path: Path, frames: int, *, source: str, first_time: int = 0, step: float = 1e6 / 30, headers: Sequence[str] = ()
) -> None:
    lines = [f"https://www.youtube.com/watch?v={source}", *headers]
    lines += [f"{first_time + round(step * k)} {camera(k)}" for k in range(frames)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def clips_folder(folder: Path, clips: int = 6, frames: int = 12, splits: Sequence[str] | None = None) -> Path:
    """Make a folder of cut clips clip0, clip1, ... each of its own source video."""
    for clip in range(clips):
        write_mp4(folder / "video_clips" / f"clip{clip}.mp4", grey_frames(clip, range(frames)), 30, crf=4)
        below = "" if splits is None else splits[clip]
        write_poses(folder / "pose_files" / below / f"clip{clip}.txt", frames, source=f"src{clip}")
    captions = {f"clip{clip}.mp4": [f"room {clip}", f"place {clip}"] for clip in range(clips)}
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


def sources_folder(folder: Path, *, late_microseconds: int = 0, fps: float = 30) -> Path:
    """Make a folder of one 40-frame source video with two clips: frames 5 to 14 and 20 to 29."""
    write_mp4(folder / "videos" / "srcA.mp4", grey_frames(0, range(40)), fps, crf=4)
    for name, first in (("early", 5), ("later", 20)):
        time = round(first * 1e6 / 30) + late_microseconds
        write_poses(folder / "pose_files" / "train" / f"{name}.txt", 10, source="srcA", first_time=time)
    (folder / "captions.json").write_text(json.dumps({"early.mp4": ["a"], "later": "b"}))
    return folder


def edit_line(path: Path, number: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines()
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")


def pack_quietly(source: Path, output: Path, **changes: Any) -> PackResult:
    return pack(source, output, replace(SETTINGS, **changes), generator={"source": "test"}, progress=False)
