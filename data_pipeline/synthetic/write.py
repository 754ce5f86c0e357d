"""Write a synthetic world as the raw folder a RealEstate10K user has.

videos/<source>.mp4, pose_files/<split>/<clip>.txt, captions.json; with `depth` also metric_scale.json (metres per pose
unit) and depth/<split>/<clip>.npz. world.json holds the settings, and says when the folder is complete.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from cami2v.video import write_mp4
from data_pipeline.synthetic.render import render_frame
from data_pipeline.synthetic.surfaces import build_scene
from data_pipeline.synthetic.world import (
    PlannedClip,
    PlannedSource,
    SyntheticWorld,
    camera_path,
    caption,
    intrinsics_pixels,
    plan_sources,
)

WORLD_VERSION = 1
"""Of the rendered pixels: raise it with every change that alters them, so that no old folder is taken for a new one."""
TEXELS_PER_PIXEL_COLUMN = 0.4
"""Texels per metre and column of the frame: one texel covers about a pixel at 1.8 metres."""
LEVELS = 9
MAX_DEPTH_MILLIMETRES = 65535

Captions = dict[str, list[str]]


def write_raw_dataset(
    folder: Path | str, world: SyntheticWorld, processes: int, progress: Callable[[int, int], None] | None
) -> None:
    """Render `world` into `folder` with a pool of processes; `progress(frames done, frames in all)` follows it.

    A complete folder of the same world is left as it is, an interrupted one is completed. Raises ValueError for a
    folder that holds anything else.
    """
    folder = Path(folder)
    if processes < 1:
        raise ValueError(f"synthetic world: processes={processes}, must be at least 1")
    if _claim(folder, world):
        return
    sources = plan_sources(world)
    frames = {source.source_id: _frame_count(world, source) for source in sources}
    total, done = sum(frames.values()), 0
    captions: dict[str, Captions] = {}
    for finished in _run(_batches(sources, processes), folder, world, processes):
        for source_id, texts in finished.items():
            captions[source_id] = texts
            done += frames[source_id]
        if progress is not None:
            progress(done, total)
    merged = {name: texts for source in sources for name, texts in captions[source.source_id].items()}
    _write_json(folder / "captions.json", merged)
    if world.depth:
        scales = {clip.clip_id: source.metres_per_unit for source in sources for clip in source.clips}
        _write_json(folder / "metric_scale.json", scales)
    _write_json(folder / "world.json", _description(world, complete=True))


def _description(world: SyntheticWorld, *, complete: bool) -> dict[str, object]:
    return {"world_version": WORLD_VERSION, "settings": world.settings(), "complete": complete}


def _claim(folder: Path, world: SyntheticWorld) -> bool:
    """Mark `folder` as this world's; return whether it is complete already."""
    path = folder / "world.json"
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder}: holds something that is not a synthetic world; give an empty or a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(path, _description(world, complete=False))
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); remove the folder or give another") from error
    wanted = _description(world, complete=True)
    if not isinstance(found, dict) or found.get("world_version") != WORLD_VERSION:
        raise ValueError(f"{path}: written by another version of the renderer; remove the folder or give another")
    if found.get("settings") != wanted["settings"]:
        differing = sorted(k for k, v in world.settings().items() if found.get("settings", {}).get(k) != v)
        raise ValueError(
            f"{folder}: holds a world with other settings ({', '.join(differing)}); remove it or give another folder"
        )
    return bool(found.get("complete"))


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _frame_count(world: SyntheticWorld, source: PlannedSource) -> int:
    return sum(clip.lead + world.frames_per_clip for clip in source.clips)


def _batches(sources: list[PlannedSource], processes: int) -> list[list[PlannedSource]]:
    """Group sources by room, so that a worker paints a room once, into at least two batches per process."""
    by_room: dict[str, list[PlannedSource]] = {}
    for source in sources:
        by_room.setdefault(source.room_name, []).append(source)
    pieces = math.ceil(2 * processes / len(by_room)) if processes > 1 else 1
    batches = []
    for group in by_room.values():
        size = math.ceil(len(group) / pieces)
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return batches


def _run(
    batches: list[list[PlannedSource]], folder: Path, world: SyntheticWorld, processes: int
) -> Iterator[dict[str, Captions]]:
    work = partial(_write_sources, folder, world)
    if processes == 1:
        for batch in batches:
            for source in batch:
                yield work([source])
        return
    with ProcessPoolExecutor(min(processes, len(batches)), mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(work, batch) for batch in batches]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            for future in pending:
                future.cancel()


def _write_sources(folder: Path, world: SyntheticWorld, sources: list[PlannedSource]) -> dict[str, Captions]:
    return {source.source_id: write_source(folder, world, source) for source in sources}


def write_source(folder: Path, world: SyntheticWorld, source: PlannedSource) -> Captions:
    """Write one source video, its clips' pose files and depth maps; return their captions.

    The video comes last, so a source whose video is there is complete and is not rendered again.
    """
    video = folder / "videos" / f"{source.source_id}.mp4"
    paths = [camera_path(world, source, clip) for clip in source.clips]
    fov = 2 * math.atan(0.5 / source.intrinsics_normalized[0])
    scene = build_scene(source.room_name, round(TEXELS_PER_PIXEL_COLUMN * world.width), LEVELS)
    captions = {
        f"{clip.clip_id}.mp4": [caption(scene.room, path[clip.lead + world.frames_per_clip // 2], fov)]
        for clip, path in zip(source.clips, paths, strict=True)
    }
    if video.exists():
        return captions
    for clip, path in zip(source.clips, paths, strict=True):
        _write_poses(folder, world, source, clip, path[clip.lead :])
    write_mp4(video, _frames(folder, world, source, paths), world.frames_per_second, crf=world.crf)
    return captions


def _frames(
    folder: Path, world: SyntheticWorld, source: PlannedSource, paths: list[Float64[np.ndarray, "_ 4 4"]]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Render a source's frames in order, writing each clip's depth maps on the way."""
    scene = build_scene(source.room_name, round(TEXELS_PER_PIXEL_COLUMN * world.width), LEVELS)
    intrinsics = intrinsics_pixels(world, source)
    for clip, path in zip(source.clips, paths, strict=True):
        depths: list[Float32[np.ndarray, "height width"]] = []
        for number, pose in enumerate(path):
            image, depth = render_frame(scene, pose, intrinsics, world.height, world.width, world.supersampling)
            if world.depth and number >= clip.lead:
                depths.append(depth)
            yield image
        if world.depth:
            _write_depth(folder / "depth" / source.split / f"{clip.clip_id}.npz", depths)


def _write_depth(path: Path, depths: list[Float32[np.ndarray, "height width"]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    millimetres = np.clip(np.rint(1000 * np.stack(depths)), 0, MAX_DEPTH_MILLIMETRES).astype(np.uint16)
    np.savez_compressed(path, depth_millimetres=millimetres)


def _write_poses(
    folder: Path,
    world: SyntheticWorld,
    source: PlannedSource,
    clip: PlannedClip,
    camera_to_world: Float64[np.ndarray, "frames 4 4"],
) -> None:
    """Write one clip's camera file; world-to-camera, translations in the source's own unit."""
    lines = [f"https://synthetic.invalid/watch?v={source.source_id}"]
    intrinsics = " ".join(f"{value:.9f}" for value in source.intrinsics_normalized)
    for number, pose in enumerate(camera_to_world):
        rotation = pose[:3, :3].T
        translation = -rotation @ pose[:3, 3] / source.metres_per_unit
        matrix = np.concatenate([rotation, translation[:, None]], axis=1)
        microseconds = round((clip.first_frame + number) * 1e6 / world.frames_per_second)
        numbers = " ".join(f"{value:.9f}" for value in matrix.reshape(-1))
        lines.append(f"{microseconds} {intrinsics} 0.000000000 0.000000000 {numbers}")
    path = folder / "pose_files" / source.split / f"{clip.clip_id}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
