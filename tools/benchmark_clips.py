"""720p clips to measure the loader with: rendered ones, or a folder of videos with or without camera files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from cami2v.geometry.cameras import invert_pose
from cami2v.trajectories.presets import preset
from cami2v.video import Frame, probe, read_forward
from data_pipeline.parallel import default_processes
from data_pipeline.synthetic.world import SyntheticWorld, plan_sources
from data_pipeline.synthetic.write import write_raw_dataset

KEY_FRAME_EVERY = 150
"""Five seconds, about what video sites and FFmpeg's default leave between two key frames."""
SOURCE_CRF = 23
"""x264's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedClips:
    """How many clips to render, and how large."""

    clips: int
    frames: int
    height: int
    width: int

    def world(self) -> SyntheticWorld:
        """Return textured rooms through which the camera moves at RealEstate10K's speed; a source video per clip."""
        return SyntheticWorld(
            seed=1,
            rooms=2,
            shared_rooms=True,
            sources={"train": self.clips},
            clips_per_source=1,
            frames_per_clip=self.frames,
            lead_frames=0,
            width=self.width,
            height=self.height,
            frames_per_second=30.0,
            supersampling=2,
            path_kinds=("dolly", "truck", "orbit", "mixture"),
            motion_extent=1.0,
            time_lapse=1.0,
            horizontal_fov_degrees=(60.0, 75.0),
            pose_unit_metres=(1.0, 1.0),
            crf=12,
            depth=False,
        )


def render(folder: Path, wanted: RenderedClips) -> Path:
    """Return a raw folder of rendered clips, encoded as downloaded videos are; one that is there is used again."""
    name = f"{wanted.clips}x{wanted.frames}-{wanted.height}p"
    output = folder / f"clips-{name}"
    if (output / "captions.json").is_file():
        return output
    world = wanted.world()
    raw = folder / f"world-{name}"
    print(f"rendering {wanted.clips} clips of {wanted.frames} frames of {wanted.width}x{wanted.height} into {output}")
    write_raw_dataset(raw, world, default_processes(), None)
    (output / "video_clips").mkdir(parents=True, exist_ok=True)
    (output / "pose_files").mkdir(exist_ok=True)
    for source in plan_sources(world):
        clip_id = source.clips[0].clip_id
        frames = (frame for _, frame in read_forward(raw / "videos" / f"{source.source_id}.mp4", range(wanted.frames)))
        _encode_like_a_download(frames, output / "video_clips" / f"{clip_id}.mp4")
        poses = raw / "pose_files" / "train" / f"{clip_id}.txt"
        (output / "pose_files" / poses.name).write_bytes(poses.read_bytes())
    (output / "captions.json").write_bytes((raw / "captions.json").read_bytes())
    return output


def posed(videos: Path, folder: Path) -> Path:
    """Return a raw folder for bare videos: links to them, and cameras along an orbit, as reading costs the same.

    Raises ValueError where there is no video.
    """
    found = sorted(path for path in videos.iterdir() if path.suffix in (".mp4", ".mkv", ".webm", ".mov"))
    if not found:
        raise ValueError(
            f"--clips {videos}: neither posed videos (docs/layouts.md) nor .mp4, .mkv, .webm or .mov files"
        )
    output = folder / "posed"
    for name in ("video_clips", "pose_files"):
        (output / name).mkdir(parents=True, exist_ok=True)
    captions = {}
    for number, video in enumerate(found):
        info = probe(video)
        link = output / "video_clips" / f"clip{number}{video.suffix}"
        link.symlink_to(video.resolve())
        focal = 0.9 * np.array([1.0, info.width / info.height])
        intrinsics = " ".join(f"{value:.9f}" for value in [*focal, 0.5, 0.5, 0.0, 0.0])
        lines = [f"https://video.invalid/watch?v={number}"]
        poses = invert_pose(preset("orbit_right", info.frames, 0.5))[:, :3].reshape(info.frames, 12).tolist()
        for second, pose in zip(info.timestamps_seconds, poses, strict=True):
            lines.append(f"{round(second * 1e6)} {intrinsics} {' '.join(f'{value:.9f}' for value in pose)}")
        (output / "pose_files" / f"clip{number}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        captions[f"clip{number}.mp4"] = ["a video"]
    (output / "captions.json").write_text(json.dumps(captions) + "\n", encoding="utf-8")
    return output


def _encode_like_a_download(frames: Iterator[Frame], path: Path) -> None:
    """Write H.264 with x264's defaults: B-frames, scene cuts, and seconds between key frames."""
    partial = path.with_name(f".{path.name}")
    with av.open(str(partial), "w", format="mp4") as container:
        options = {"crf": str(SOURCE_CRF), "g": str(KEY_FRAME_EVERY)}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            if not number:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)
