"""The page: what is where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from cami2v.inference.app import path_fields
from cami2v.inference.app.examples import examples
from cami2v.inference.app.markup import header, notice, progress
from cami2v.inference.app.models import methods_of
from cami2v.inference.app.path_fields import PathFields
from cami2v.inference.app.studio import ModelSheet, Studio

STYLE = Path(__file__).with_name("page.css")
TITLE = "cami2v"
OWN_SAMPLER = "the model's own"
SAMPLERS = [OWN_SAMPLER, "ddim", "dpm_solver", "unipc"]
READY = "Ready."
PUBLISHED_LOWEST = 900
"""Timestep down to which RealCam-I2V follows the scene."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Components that do something."""

    header: gr.HTML
    note: gr.HTML
    picture: gr.Image
    picture_notice: gr.HTML
    examples: gr.Gallery
    caption: gr.Textbox
    describe: gr.Button
    field_of_view: gr.Number
    depth_map: gr.File
    wall: gr.Slider
    path: PathFields
    path_notice: gr.HTML
    preview: gr.HTML
    preview_facts: gr.HTML
    method: gr.Dropdown
    checkpoint: gr.Dropdown
    model_notice: gr.HTML
    frames: gr.Slider
    steps: gr.Slider
    seed: gr.Number
    other_seed: gr.Button
    negative: gr.Textbox
    sampler: gr.Dropdown
    guidance: gr.Slider
    camera_guidance: gr.Slider
    follow: gr.Checkbox
    lowest: gr.Number
    metres: gr.Number
    generate: gr.Button
    cancel: gr.Button
    progress: gr.HTML
    video: gr.Video
    facts: gr.HTML
    gallery: gr.Gallery
    compare: gr.CheckboxGroup
    side_by_side: gr.Button
    compared: gr.Video
    replayed: gr.Dropdown
    replay: gr.Button
    replay_file: gr.File
    gallery_notice: gr.HTML


def build(studio: Studio, sheet: ModelSheet) -> Page:
    """Lay the page out, with the fields as the first model wants them; to be called within gr.Blocks."""
    parts: dict[str, Any] = {"header": gr.HTML(header(sheet), elem_id="header")}
    parts["note"] = gr.HTML(notice(studio.choices[0].note, "hint"), elem_id="note")
    with gr.Row(elem_id="work", equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_id="left"):
            parts |= _picture(studio)
            parts |= _path()
            parts |= _video(studio, sheet)
        with gr.Column(scale=6, min_width=320, elem_id="right"):
            parts |= _preview()
            parts |= _result()
    parts |= _gallery()
    return Page(**parts)


def _picture(studio: Studio) -> dict[str, Any]:
    missing = studio.captions.missing
    with gr.Column(elem_id="section-picture", elem_classes="section"):
        gr.HTML("<h2><span>1</span> Picture</h2>")
        parts: dict[str, Any] = {
            "picture": gr.Image(
                type="filepath", sources=["upload"], show_label=False, height=250, elem_id="picture",
                buttons=[], placeholder="PNG, JPEG or WebP",
            )
        }  # fmt: skip
        parts["picture_notice"] = gr.HTML(elem_id="picture-notice")
        parts["examples"] = gr.Gallery(
            [(str(each.picture), each.name) for each in examples()], show_label=False, columns=4, rows=1, height=88,
            allow_preview=False, interactive=False, object_fit="cover", elem_id="examples", buttons=[],
        )  # fmt: skip
        with gr.Row(equal_height=True):
            parts["caption"] = gr.Textbox(
                label="Caption", placeholder="What the picture shows", lines=1, max_lines=3, scale=4, elem_id="caption",
                max_length=2000, min_width=200,
            )  # fmt: skip
            parts["describe"] = gr.Button(
                "Describe it", interactive=missing is None, scale=1, min_width=110, elem_id="describe", size="sm"
            )
        if missing is not None:
            gr.HTML(notice(f"No captioner: {missing}.", "hint"), elem_id="captioner-notice")
        with gr.Accordion("Lens and depth", open=False):
            with gr.Row():
                parts["field_of_view"] = gr.Number(
                    0, label="Horizontal view, degrees", info="0: 90 along the longer side",
                    min_width=180, elem_id="field-of-view",
                )  # fmt: skip
                parts["wall"] = gr.Slider(
                    0.2, 20, value=studio.preview.wall_distance, step=0.1, min_width=180, elem_id="wall",
                    label="Distance without depth", info="of the preview's wall, scene units",
                )  # fmt: skip
            parts["depth_map"] = gr.File(
                label="Depth map: 16-bit PNG, thousandths of a unit", file_types=[".png"], height=120
            )
    return parts


def _path() -> dict[str, Any]:
    with gr.Column(elem_id="section-path", elem_classes="section"):
        gr.HTML("<h2><span>2</span> Camera path</h2>")
        parts: dict[str, Any] = {"path": path_fields.build()}
        parts["path_notice"] = gr.HTML(elem_id="path-notice")
    return parts


def _preview() -> dict[str, Any]:
    with gr.Column(elem_id="section-preview", elem_classes="section"):
        gr.HTML("<h2>Preview <small>before anything is sampled</small></h2>")
        return {
            "preview": gr.HTML(elem_id="preview"),
            "preview_facts": gr.HTML(elem_id="preview-facts"),
        }


def _video(studio: Studio, sheet: ModelSheet) -> dict[str, Any]:
    methods = methods_of(studio.choices)
    first = studio.choices[0]
    limits = studio.limits
    with gr.Column(elem_id="section-video", elem_classes="section"):
        gr.HTML("<h2><span>3</span> Video</h2>")
        with gr.Row():
            parts: dict[str, Any] = {
                "method": gr.Dropdown(
                    list(methods), value=first.method, label="Method", min_width=150, elem_id="method"
                ),
                "checkpoint": gr.Dropdown(
                    methods[first.method], value=first.checkpoint, label="Checkpoint", min_width=190,
                    elem_id="checkpoint",
                ),
            }  # fmt: skip
        parts["model_notice"] = gr.HTML(elem_id="model-notice")
        with gr.Row():
            parts["frames"] = gr.Slider(
                2, limits.frames, value=sheet.frames, step=1, label="Frames", min_width=150, elem_id="frames"
            )
            parts["steps"] = gr.Slider(
                1, limits.steps, value=sheet.steps, step=1, label="Steps", min_width=150, elem_id="steps"
            )
        with gr.Row(equal_height=True):
            parts["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=110)
            parts["other_seed"] = gr.Button("Another seed", min_width=110, elem_id="other-seed", size="sm")
        with gr.Accordion("Sampler and guidance", open=False):
            with gr.Row():
                parts["sampler"] = gr.Dropdown(SAMPLERS, value=OWN_SAMPLER, label="Sampler", min_width=150)
                parts["guidance"] = gr.Slider(
                    0, 20, value=sheet.guidance_scale, step=0.1, label="Guidance", min_width=150
                )
                parts["camera_guidance"] = gr.Slider(
                    0, 10, value=sheet.camera_guidance, step=0.1, label="Camera guidance", min_width=150
                )
            with gr.Row():
                parts["follow"] = gr.Checkbox(
                    False, label="Follow the scene in the first steps", info="RealCam-I2V; needs depth in metres",
                    min_width=200, elem_id="follow",
                )  # fmt: skip
                parts["lowest"] = gr.Number(
                    PUBLISHED_LOWEST, label="Down to timestep", precision=0, minimum=0, maximum=999, min_width=110
                )
                parts["metres"] = gr.Number(
                    0, label="Metres per unit", info="0: a model in metres", min_width=110,
                    elem_id="metres",
                )  # fmt: skip
            parts["negative"] = gr.Textbox(label="Negative caption", lines=1, max_lines=2, max_length=2000)
        with gr.Row(elem_id="go"):
            parts["generate"] = gr.Button("Generate", variant="primary", elem_id="generate", min_width=140, scale=3)
            parts["cancel"] = gr.Button("Cancel", variant="stop", elem_id="cancel", min_width=90, scale=1)
        parts["progress"] = gr.HTML(progress("idle", 0, READY), elem_id="progress")
    return parts


def _result() -> dict[str, Any]:
    with gr.Column(elem_id="section-result", elem_classes="section"):
        gr.HTML("<h2>Result</h2>")
        with gr.Row():
            video = gr.Video(
                show_label=False, interactive=False, autoplay=True, loop=True, height=280, elem_id="video", scale=3,
                min_width=240, buttons=["download"],
            )  # fmt: skip
            with gr.Column(scale=2, min_width=200):
                facts = gr.HTML(notice("Nothing yet.", "hint"), elem_id="facts")
    return {"video": video, "facts": facts}


def _gallery() -> dict[str, Any]:
    with gr.Column(elem_id="section-gallery", elem_classes="section"):
        gr.HTML("<h2>Gallery <small>of this page; every file carries what it takes to make it again</small></h2>")
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                parts: dict[str, Any] = {
                    "gallery": gr.Gallery(
                        show_label=False, columns=3, fit_columns=False, height="auto", interactive=False,
                        elem_id="gallery", object_fit="contain", buttons=["download"],
                    )
                }  # fmt: skip
                parts["gallery_notice"] = gr.HTML(elem_id="gallery-notice")
            with gr.Column(scale=4, min_width=300):
                with gr.Accordion("Side by side", open=True):
                    parts["compare"] = gr.CheckboxGroup([], show_label=False, elem_id="compare")
                    parts["side_by_side"] = gr.Button("Show side by side", elem_id="side-by-side", size="sm")
                    parts["compared"] = gr.Video(
                        show_label=False, interactive=False, autoplay=True, loop=True, visible=False,
                        elem_id="compared", buttons=["download"],
                    )  # fmt: skip
                with gr.Accordion("Replay", open=False, elem_id="replay-section"):
                    gr.HTML(notice("Makes a video again from its own record and compares every frame.", "hint"))
                    parts["replayed"] = gr.Dropdown([], label="Of this page", elem_id="replayed")
                    parts["replay_file"] = gr.File(
                        label="Or an mp4 of cami2v sample or this app", file_types=[".mp4"], height=120,
                        elem_id="replay-file",
                    )  # fmt: skip
                    parts["replay"] = gr.Button("Make it again", elem_id="replay", size="sm")
    return parts
