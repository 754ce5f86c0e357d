"""The README.md of an exported model: what it is, what it was trained on, how good it is, and on how many clips."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cami2v.inference.source import PipelineSource
from cami2v.signature import TARGET

SECTIONS = 2
"""Of an evaluation's report.md: its tables of camera errors."""


def model_card(
    source: PipelineSource, *, title: str, data: str | None, licence: str | None, evaluation: Path | None
) -> str:
    """Write the card; `evaluation` is the folder in which `cami2v evaluate` judged these very weights.

    Raises ValueError where that folder judged others, or holds no report.
    """
    config, defaults = source.config, source.defaults
    front = ["---", "library_name: cami2v", "pipeline_tag: image-to-video", "tags: [camera-control, video-diffusion]"]
    front += [f"license: {licence}"] if licence else []
    diffusion, sampler = config["diffusion"], config["sampler"]
    facts = {
        "camera control": _class(config["camera"]),
        "backbone": _class(config["backbone"]),
        "first stage": _class(config["first_stage"]),
        "trained for": f"{defaults.frames} frames of {defaults.height}x{defaults.width}",
        "prediction": f"{diffusion['prediction']}, told the {diffusion['frame_rate']}",
        "data": data or "not recorded",
        "scale policy": f"{defaults.scale_policy} (the unit of camera translations)",
        "sampler": ", ".join(f"{key} {value}" for key, value in sampler.items() if not isinstance(value, dict)),
        "made from": json.dumps(source.identity, sort_keys=True),
    }
    return "\n".join(
        [
            *front, "---", "", f"# {title}", "", "An image, a caption and a camera path in, a video out.", "",
            *(f"- {name}: {text}" for name, text in facts.items()), "",
            "```python", "from cami2v.inference import Pipeline", "",
            'pipeline = Pipeline.from_pretrained("<this folder>")',
            'video = pipeline("image.png", caption="a room", trajectory="orbit_right")[0]', "```", "",
            "## Evaluation", "", _evaluation(source, evaluation), "",
        ]
    )  # fmt: skip


def _evaluation(source: PipelineSource, folder: Path | None) -> str:
    if folder is None:
        return "None is recorded."
    results, report = folder / "results.json", folder / "report.md"
    if not results.is_file() or not report.is_file():
        raise ValueError(f"evaluated_in={folder}: no results.json and report.md there; run cami2v evaluate first")
    judged = json.loads(results.read_text())["evaluation"].get("checkpoint") or {}
    if judged.get("sha256") != source.identity.get("sha256") or judged.get("files") != source.identity.get("files"):
        raise ValueError(
            f"evaluated_in={folder}: judged {judged.get('path')}, not these weights; give the evaluation of this "
            "checkpoint"
        )
    sections = re.split(r"(?m)^## ", report.read_text())
    return "\n".join(f"### {section.strip()}\n" for section in sections[1 : 1 + SECTIONS])


def _class(node: Mapping[str, Any]) -> str:
    return str(node[TARGET]).rpartition(".")[2]
