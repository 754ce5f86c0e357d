"""The synthetic world as cut clips in RealEstate10K's raw layout, and the same clips in every other layout."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from cami2v.video import read_frames, write_mp4
from data_pipeline.realestate10k.layout import find_clips
from data_pipeline.realestate10k.track import PoseTrack
from data_pipeline.synthetic.write import write_raw_dataset
from tests.data_pipeline.synthetic.worlds import small_world

FPS = 30
FRAMES = 6


@dataclass(frozen=True)
class CutClip:
    clip_id: str
    split: str
    caption: str
    metric_scale: float
    track: PoseTrack
    frames: np.ndarray


def cut_clips(folder: Path) -> list[CutClip]:
    """Render the world below `folder`/world and cut its clips."""
    world = small_world(frames_per_clip=FRAMES, crf=4, sources={"train": 2, "test": 1}, rooms=1)
    write_raw_dataset(folder / "world", world, 1, None)
    clips = []
    for clip in find_clips(folder / "world").clips:
        track = clip.track()
        numbers = np.rint(track.timestamps_microseconds * FPS / 1e6).astype(int)
        frames = read_frames(folder / "world" / "videos" / f"{track.source_id}.mp4", numbers.tolist())
        clips.append(CutClip(clip.clip_id, str(clip.split), clip.captions[0], float(clip.metric_scale), track, frames))
    return clips


def pose_lines(track: PoseTrack) -> list[str]:
    return [
        " ".join([str(time), *(f"{value:.12f}" for value in [*intrinsics, 0, 0, *pose.reshape(-1)])])
        for time, intrinsics, pose in zip(
            track.timestamps_microseconds, track.intrinsics_normalized, track.world_to_camera, strict=True
        )
    ]


def write_text(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_captions(folder: Path, clips: list[CutClip]) -> None:
    (folder / "captions.json").write_text(json.dumps({f"{clip.clip_id}.mp4": [clip.caption] for clip in clips}))


def write_scales(folder: Path, clips: list[CutClip]) -> None:
    (folder / "metric_scale.json").write_text(json.dumps({clip.clip_id: clip.metric_scale for clip in clips}))


def write_sources(folder: Path, clips: list[CutClip]) -> None:
    (folder / "sources.json").write_text(json.dumps({clip.clip_id: clip.track.source_id for clip in clips}))


def write_video(path: Path, clip: CutClip) -> None:
    write_mp4(path, clip.frames, FPS, crf=4)


def raw(folder: Path, clips: list[CutClip]) -> None:
    for clip in clips:
        write_video(folder / "video_clips" / f"{clip.clip_id}.mp4", clip)
        poses = folder / "pose_files" / clip.split / f"{clip.clip_id}.txt"
        write_text(poses, [clip.track.address, *pose_lines(clip.track)])
    write_captions(folder, clips)
    write_scales(folder, clips)


def pixelsplat(folder: Path, clips: list[CutClip]) -> None:
    for split in ("train", "test"):
        chunks: list[list[dict[str, object]]] = [[], []]
        for number, clip in enumerate(each for each in clips if each.split == split):
            rows = np.concatenate(
                [clip.track.intrinsics_normalized, np.zeros((FRAMES, 2)), clip.track.world_to_camera.reshape(-1, 12)], 1
            )
            chunks[number % 2].append(
                {
                    "key": clip.clip_id,
                    "url": clip.track.address,
                    "timestamps": torch.as_tensor(clip.track.timestamps_microseconds),
                    "cameras": torch.as_tensor(rows, dtype=torch.float32),
                    "images": [torch.frombuffer(bytearray(jpeg(frame)), dtype=torch.uint8) for frame in clip.frames],
                }
            )
        (folder / split).mkdir(parents=True)
        for number, chunk in enumerate(chunks):
            torch.save(chunk, folder / split / f"{number:06d}.torch")
        index = {str(clip["key"]): f"{number:06d}.torch" for number, chunk in enumerate(chunks) for clip in chunk}
        if split == "train":  # the other is read without one
            (folder / split / "index.json").write_text(json.dumps(index))
    write_captions(folder, clips)
    write_scales(folder, clips)


def realcam_vid(folder: Path, clips: list[CutClip]) -> None:
    folder.mkdir()
    for split in ("train", "test"):
        records = []
        for clip in clips:
            if clip.split != split:
                continue
            write_video(folder / "videos" / f"{clip.clip_id}.mp4", clip)
            poses = np.tile(np.eye(4), (FRAMES, 1, 1))
            poses[:, :3] = clip.track.world_to_camera
            records.append(
                {
                    "video_path": f"videos/{clip.clip_id}.mp4",
                    "dataset_source": "RealEstate10K",
                    "camera_intrinsics": clip.track.intrinsics_normalized[0],
                    "camera_extrinsics": poses,
                    "align_factor": np.float64(clip.metric_scale),
                    "camera_scale": 1.0,
                    "vtss_score": np.float32(0.5),
                    "short_caption": "short",
                    "long_caption": clip.caption,
                }
            )
        np.savez(folder / f"RealCam-Vid_{split}.npz", np.array(records, dtype=object))
    (folder / "sources.json").write_text(json.dumps({f"videos-{clip.clip_id}": clip.track.source_id for clip in clips}))


def cameractrl(folder: Path, clips: list[CutClip]) -> None:
    (folder / "annotations").mkdir(parents=True)
    lists: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for clip in clips:
        video, poses = f"video_clips/{clip.track.source_id}/{clip.clip_id}.mp4", f"pose_files/{clip.clip_id}.txt"
        write_video(folder / video, clip)
        write_text(folder / poses, [clip.track.address, *pose_lines(clip.track)])
        lists[clip.split].append({"clip_path": video, "pose_file": poses, "caption": [clip.caption]})
    for split, entries in lists.items():
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(entries))
    write_scales(folder, clips)


def cami2v(folder: Path, clips: list[CutClip]) -> None:
    for clip in clips:
        video = f"{clip.track.source_id}/{clip.clip_id}.mp4"
        write_video(folder / "video_clips" / clip.split / video, clip)
        headers = [clip.track.address, video, clip.caption]
        write_text(folder / "valid_metadata" / clip.split / f"{clip.clip_id}.txt", [*headers, *pose_lines(clip.track)])
        write_text(folder / "pose_files" / clip.split / "other.txt", [clip.track.address, *pose_lines(clip.track)])
    (folder / "videos").mkdir()
    write_scales(folder, clips)


def videox_fun(folder: Path, clips: list[CutClip]) -> None:
    folder.mkdir()
    lists: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for number, clip in enumerate(clips):
        video, poses = f"{clip.split}/{clip.clip_id}.mp4", f"{clip.split}/{clip.clip_id}.txt"
        write_video(folder / video, clip)
        lines = pose_lines(clip.track)
        # Every second like the samples that come with it: no address, all times 0.
        timeless = ["", *(f"0 {line.split(' ', 1)[1]}" for line in lines)]
        lines = timeless if number % 2 else [clip.track.address, *lines]
        write_text(folder / poses, lines)
        entry: dict[str, object] = {
            "file_path": video,
            "control_file_path": poses,
            "text": clip.caption,
            "type": "video",
        }
        lists[clip.split].append(entry)
    for split, entries in lists.items():
        (folder / f"metadata_{split}.json").write_text(json.dumps(entries))
    write_sources(folder, clips)
    write_scales(folder, clips)


def colmap(folder: Path, clips: list[CutClip], text: bool = True) -> None:
    for number, clip in enumerate(clips):
        scene = folder / clip.clip_id
        height, width = clip.frames.shape[1:3]
        model = pycolmap.Reconstruction()
        parameters = clip.track.intrinsics_normalized[0] * [width, height, width, height]
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(camera_id=1, model="PINHOLE", width=width, height=height, params=parameters)
        )
        (scene / "images").mkdir(parents=True)
        for frame, (picture, pose) in enumerate(zip(clip.frames, clip.track.world_to_camera, strict=True)):
            name = f"frame_{frame + 8}.png"  # 8, 9, 10, ...: not in the order of plain text
            Image.fromarray(picture).save(scene / "images" / name)
            model.add_image_with_trivial_frame(
                pycolmap.Image(name=name, camera_id=1, image_id=frame + 1), pycolmap.Rigid3d(pose)
            )
        sparse = scene / "sparse" / "0" if number % 2 else scene / "sparse"
        sparse.mkdir(parents=True)
        (model.write_text if number % 2 else model.write_binary)(sparse)
    write_captions(folder, clips)
    write_scales(folder, clips)
    write_sources(folder, clips)


def tum(folder: Path, clips: list[CutClip]) -> None:
    for number, clip in enumerate(clips):
        scene = folder / clip.clip_id
        height, width = clip.frames.shape[1:3]
        times = (clip.track.timestamps_microseconds - clip.track.timestamps_microseconds[0]) / 1e6
        start = 0.0
        if number % 2:
            write_video(scene / "video.mp4", clip)
        else:
            start = 1_305_031_102.175304
            lines = ["# timestamp filename"]
            (scene / "rgb").mkdir(parents=True)
            for frame, (picture, time) in enumerate(zip(clip.frames, times, strict=True)):
                Image.fromarray(picture).save(scene / "rgb" / f"{frame}.png")
                lines.append(f"{start + time:.6f} rgb/{frame}.png")
            write_text(scene / "rgb.txt", lines)
        rotations = clip.track.world_to_camera[:, :, :3].transpose(0, 2, 1)
        positions = -np.einsum("fij,fj->fi", rotations, clip.track.world_to_camera[:, :, 3])
        quaternions = Rotation.from_matrix(rotations).as_quat()
        lines = ["# timestamp tx ty tz qx qy qz qw"]
        for frame in range(FRAMES):
            numbers = [*positions[frame], *quaternions[frame]]
            lines.append(f"{start + times[frame] + 0.002:.6f} " + " ".join(f"{value:.12f}" for value in numbers))
        write_text(scene / ("trajectory.txt" if number % 2 else "groundtruth.txt"), lines)
        intrinsics = [*(clip.track.intrinsics_normalized[0] * [width, height, width, height]), width, height]
        write_text(scene / "intrinsics.txt", [" ".join(f"{value:.12f}" for value in intrinsics)])
    write_captions(folder, clips)
    write_scales(folder, clips)
    write_sources(folder, clips)


WRITERS: dict[str, Callable[[Path, list[CutClip]], None]] = {
    "pixelsplat": pixelsplat,
    "realcam_vid": realcam_vid,
    "cameractrl": cameractrl,
    "cami2v": cami2v,
    "videox_fun": videox_fun,
    "colmap": colmap,
    "tum": tum,
}


def jpeg(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=97, subsampling=0)
    return buffer.getvalue()
