"""A synthetic world whose pose files have arbitrary units, with true depth maps, and with the truth taken away."""

from __future__ import annotations

import json
from pathlib import Path

from data_pipeline.synthetic.write import write_raw_dataset
from tests.data_pipeline.synthetic.worlds import small_world

FRAMES = 8


def world_without_scales(folder: Path) -> dict[str, float]:
    """Render six clips into folder/raw, true depth into folder/depth; return metres per unit, which the folder lacks.

    Units are 5 cm to 20 m long, another one for each source video.
    """
    world = small_world(
        frames_per_clip=FRAMES,
        width=320,
        height=192,
        supersampling=1,
        rooms=1,
        sources={"train": 2, "test": 1},
        path_kinds=("truck", "orbit", "mixture"),
        pose_unit_metres=(0.05, 20.0),
    )
    write_raw_dataset(folder / "raw", world, 1, None)
    (folder / "raw" / "depth").rename(folder / "depth")
    truth: dict[str, float] = json.loads((folder / "raw" / "metric_scale.json").read_text())
    (folder / "raw" / "metric_scale.json").unlink()
    return truth
