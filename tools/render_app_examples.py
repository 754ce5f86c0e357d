"""The example pictures of `cami2v app`, with their depth, drawn from the synthetic world.

`python -m tools.render_app_examples` writes cami2v/inference/app/examples anew: the same files each time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline.synthetic.render import render_frame
from data_pipeline.synthetic.surfaces import build_scene
from data_pipeline.synthetic.world import SyntheticWorld, camera_path, caption, intrinsics_pixels, plan_sources
from data_pipeline.synthetic.write import LEVELS
from launch.compose import compose_config, instantiate_part

FIELD_OF_VIEW_DEGREES = 68.0
FRAME = 10
DEPTH_WIDTH = 256
JPEG_QUALITY = 88
TEXELS_PER_METRE = 250
DEPTH_STEP = 10
"""Millimetres: coarse enough that a map takes few bytes."""

CHOSEN: dict[str, tuple[int, dict[str, Any]]] = {
    "kitchen": (0, {"motion": "orbit_right", "amount": 0.7, "distance": 3.0}),
    "library": (1, {"motion": "pan_right", "amount": 1.0, "distance": 2.5}),
    "study": (7, {"motion": "zoom_in", "together": "look_left", "amount": 0.8, "distance": 3.0}),
    "desk": (10, {"motion": "dolly_zoom_in", "amount": 1.5, "distance": 2.5}),
}
"""Name of an example -> source of the world, and the path it is shown with."""


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.render_app_examples", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("cami2v/inference/app/examples"))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    world = _world(512, 320)
    sources = plan_sources(world)
    described = [_example(folder, name, world, sources[number], path) for name, (number, path) in CHOSEN.items()]
    (folder / "examples.json").write_text(json.dumps(described, indent=1) + "\n")
    for file in sorted(folder.iterdir()):
        print(f"{file} {file.stat().st_size} bytes")


def _world(width: int, height: int) -> SyntheticWorld:
    fov = [FIELD_OF_VIEW_DEGREES, FIELD_OF_VIEW_DEGREES]
    overrides = [
        "world=rooms", f"world.width={width}", f"world.height={height}", "world.clips_per_source=1",
        "world.sources={train: 12}", f"world.horizontal_fov_degrees={fov}",
    ]  # fmt: skip
    world: SyntheticWorld = instantiate_part(compose_config("pack", overrides).world, "world")
    return world


def _example(folder: Path, name: str, world: SyntheticWorld, source: Any, path: dict[str, Any]) -> dict[str, Any]:
    scene = build_scene(source.room_name, TEXELS_PER_METRE, LEVELS)
    pose = camera_path(world, source, source.clips[0])[FRAME]
    image, depth = render_frame(scene, pose, intrinsics_pixels(world, source), world.height, world.width, 3)
    Image.fromarray(image).save(folder / f"{name}.jpg", quality=JPEG_QUALITY, optimize=True)
    step = world.width // DEPTH_WIDTH
    millimetres = np.rint(depth[step // 2 :: step, step // 2 :: step] * 1000 / DEPTH_STEP) * DEPTH_STEP
    Image.fromarray(millimetres.astype(np.uint16)).save(folder / f"{name}.depth.png", optimize=True)
    return {
        "name": name,
        "caption": caption(scene.room, pose, math.radians(FIELD_OF_VIEW_DEGREES)),
        "field_of_view_degrees": FIELD_OF_VIEW_DEGREES,
        **path,
    }


if __name__ == "__main__":
    main()
