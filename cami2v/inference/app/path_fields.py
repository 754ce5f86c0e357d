"""The trajectory editor's fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from cami2v.inference.app.camera_path import COLUMNS, KEY_FRAMES, Editor
from cami2v.inference.app.uploads import COLMAP, PATHS
from cami2v.inference.app.visit import Visit
from cami2v.trajectories.edits import EASINGS
from cami2v.trajectories.presets import PRESETS

KINDS = [("Preset", "preset"), ("Key-frames", "key-frames"), ("File", "file")]
NOTHING = "nothing"
OTHERS = ("more", "upload", "groups")
"""Fields that an editor is not read from."""
MOTIONS = [(name.replace("_", " "), name) for name in PRESETS]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFields:
    """Components, in the order in which `read` takes their values."""

    kind: gr.Radio
    motion: gr.Dropdown
    together: gr.Dropdown
    amount: gr.Slider
    distance: gr.Slider
    table: gr.Dataframe
    interpolation: gr.Radio
    ease: gr.Dropdown
    speed: gr.Slider
    scale: gr.Slider
    start: gr.Slider
    end: gr.Slider
    reverse: gr.Checkbox
    loop: gr.Checkbox
    condition_frame: gr.Number
    more: gr.Button
    upload: gr.File
    groups: tuple[gr.Group, gr.Group, gr.Group]

    def inputs(self) -> list[Any]:
        """Return what an editor is read from."""
        return [getattr(self, name) for name in _read_names()]


def read(values: Sequence[Any], visit: Visit) -> Editor:
    """Read the fields. Raises ValueError for a number that was deleted."""
    given = dict(zip(_read_names(), values, strict=True))
    for name in ("amount", "distance", "speed", "scale", "start", "end"):
        given[name] = number(given[name], name)
    given["together"] = "" if given["together"] == NOTHING else given["together"]
    given["condition_frame"] = int(given["condition_frame"] or 0)
    return Editor(**given, uploaded=visit.uploaded)


def number(value: Any, name: str) -> float:
    """Read the number of a field. Raises ValueError where there is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{name}: is empty; give a number")
    return float(value)


def optional(value: Any, name: str, most: float) -> float | None:
    """Read a number that may be missing; 0 is none: so an emptied field says as well. Raises ValueError outside."""
    if not value:
        return None
    read = number(value, name)
    if not 0 < read <= most:
        raise ValueError(f"{name}: got {read:g}; choose a number above 0, at most {most:g}, or leave it empty")
    return read


def _read_names() -> list[str]:
    return [field.name for field in fields(PathFields) if field.name not in OTHERS]


def build() -> PathFields:
    """Lay the fields out."""
    kind = gr.Radio(KINDS, value="preset", show_label=False, container=False, elem_id="kind", elem_classes="segments")
    with gr.Group() as of_preset:
        with gr.Row():
            motion = gr.Dropdown(MOTIONS, value="orbit_right", label="Motion", elem_id="motion", min_width=220)
            together = gr.Dropdown(
                [("nothing else", NOTHING), *MOTIONS], value=NOTHING, label="At the same time", elem_id="together",
                min_width=220,
            )  # fmt: skip
        with gr.Row():
            amount = gr.Slider(
                0.1, 4, value=1, step=0.05, label="Extent", info="times the preset's own", elem_id="amount"
            )
            distance = gr.Slider(
                0.2, 10, value=1, step=0.05, label="Subject's distance", elem_id="distance",
                info="orbits, dolly zooms",
            )  # fmt: skip
    with gr.Group(visible=False) as of_table:
        table = gr.Dataframe(
            [list(row) for row in KEY_FRAMES], headers=list(COLUMNS), datatype="number", type="array",
            column_count=len(COLUMNS), interactive=True, show_label=False,
            elem_id="table", buttons=[], max_height=260,
        )  # fmt: skip
        more = gr.Button("Add a key-frame", size="sm", elem_id="more")
        interpolation = gr.Radio(
            [("smooth", "smooth"), ("straight lines", "linear")], value="smooth", label="Between key-frames",
            info="at: 0 to 1. right, down, ahead: scene units. yaw right, pitch up, roll clockwise: degrees.",
        )  # fmt: skip
    with gr.Group(visible=False) as of_file:
        upload = gr.File(
            label="RealEstate10K, CameraCtrl, MotionCtrl, TUM, transforms.json, COLMAP's files together, or YAML",
            file_types=sorted({*PATHS, *(f".{name.rpartition('.')[2]}" for name in COLMAP)}), file_count="multiple",
            height=130, elem_id="path-file",
        )  # fmt: skip
    with gr.Accordion("Timing, scale, direction", open=False, elem_id="timing"):
        with gr.Row():
            ease = gr.Dropdown(["linear", *EASINGS], value="linear", label="Easing", min_width=140)
            speed = gr.Slider(0.1, 4, value=1, step=0.05, label="Speed", elem_id="speed", min_width=160)
            scale = gr.Slider(0.05, 5, value=1, step=0.05, label="Scale", elem_id="scale", min_width=160)
        with gr.Row():
            start = gr.Slider(0, 1, value=0, step=0.01, label="From", min_width=140)
            end = gr.Slider(0, 1, value=1, step=0.01, label="To", min_width=140)
            condition_frame = gr.Number(0, label="Frame of the picture", precision=0, minimum=0, min_width=140)
        with gr.Row():
            reverse = gr.Checkbox(False, label="Backwards", min_width=120)
            loop = gr.Checkbox(False, label="There and back again", elem_id="loop", min_width=120)
    return PathFields(
        kind=kind, motion=motion, together=together, amount=amount, distance=distance, table=table,
        interpolation=interpolation, ease=ease, speed=speed, scale=scale, start=start, end=end, reverse=reverse,
        loop=loop, condition_frame=condition_frame, more=more, upload=upload, groups=(of_preset, of_table, of_file),
    )  # fmt: skip
