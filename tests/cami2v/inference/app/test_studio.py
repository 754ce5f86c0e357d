"""What the app does without its page: fields to videos, and videos to the same videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cami2v.inference.app.camera_path import KEY_FRAMES, Editor
from cami2v.inference.app.examples import examples
from cami2v.inference.app.job import Finished
from cami2v.inference.app.models import ModelChoice
from cami2v.inference.app.preview import Preview
from cami2v.inference.app.replay import Replay
from cami2v.inference.app.settings import Limits, PreviewSettings
from cami2v.inference.app.studio import Made, Studio, VideoFields
from cami2v.inference.app.visit import Visit
from cami2v.inference.pipeline import Pipeline
from cami2v.video_encoding import write_mp4
from launch.untrained import untrained_source

LIMITS = Limits(upload_megabytes=20, megapixels=40.0, long_side=512, frames=12, steps=5, results=2)
FIELDS = VideoFields(
    caption="a room", negative_caption="", frames=8, steps=2, sampler=None, guidance_scale=1.0, camera_guidance=1.0,
    seed=3,
)  # fmt: skip
EDITOR = Editor(
    kind="preset", motion="pan_left", together="", amount=1.0, distance=1.0, table=KEY_FRAMES, interpolation="smooth",
    uploaded=None, ease="linear", speed=1.0, scale=1.0, start=0.0, end=1.0, reverse=False, loop=False,
    condition_frame=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("studio")
    choice = ModelChoice(
        method="motionctrl",
        checkpoint="tiny",
        load=lambda: Pipeline(untrained_source("motionctrl", folder / "model")),
        note="",
    )
    return Studio(
        choices=[choice], held_models=1, limits=LIMITS, depth_network=None, captioner=None, frames_per_second=8.0,
        preview=PreviewSettings(short_side=64, wall_distance=1.0, frames_per_second=8.0), served=folder / "served",
        output=folder / "kept",
    )  # fmt: skip


def made(studio: Studio, visit: Visit, fields: VideoFields, editor: Editor = EDITOR) -> Finished[Made]:
    *_, end = studio.generate(visit, visit.begin(), studio.choices[0], editor, fields, None)
    assert isinstance(end, Finished)
    return end


def test_a_video_shaped_by_its_scene_is_made_again_from_its_file(studio: Studio) -> None:
    visit = Visit(subject=examples()[0].subject())
    plain = made(studio, visit, FIELDS).result
    shaped = made(studio, visit, replace(FIELDS, noise_shaping=900, metres_per_unit=1.0)).result
    assert plain is not None
    assert shaped is not None
    assert shaped.result.frames_sha256 != plain.result.frames_sha256
    assert shaped.result.request.trajectory == "pan_left"
    replay = Replay.from_file(shaped.result.path, "it", LIMITS)
    *_, end = studio.replay(visit, visit.begin(), studio.choices[0], replay)
    assert isinstance(end, Finished)
    assert end.result is not None
    assert "identical to the last bit" in end.result.remarks[0]
    assert [each.number for each in visit.results] == [2, 3], "the oldest goes, files stay"
    assert len(list(studio.gallery.kept.glob("*.mp4"))) == 3
    with pytest.raises(ValueError, match="does not carry its depth"):
        replace(replay, record=replace(replay.record, depth=None)).depth()


def test_what_cannot_be_made_is_said_and_costs_nothing(studio: Studio) -> None:
    visit = Visit()
    assert made(studio, visit, FIELDS).error == "picture: none yet; hand one in, or take an example"
    visit.subject = replace(examples()[0].subject(), depth=None)
    wrong = {
        "steps: got 6, choose 1 to 5": replace(FIELDS, steps=6),
        "frames: got 13, choose 1 to 12": replace(FIELDS, frames=13),
        "this model has no depth network": replace(FIELDS, noise_shaping=900, metres_per_unit=1.0),
        "the scene is in metres, but this model's poses are not": replace(FIELDS, noise_shaping=900),
    }
    for message, fields in wrong.items():
        error = made(studio, visit, fields).error
        assert error is not None
        assert message in error
    assert visit.results == []
    assert made(studio, visit, replace(FIELDS, frames=12)).error is None, "longer videos are made in windows"


def test_previews_know_where_their_depth_comes_from(studio: Studio) -> None:
    visit = Visit()

    def shown() -> Preview:
        return studio.show(visit, EDITOR, frames=4, field_of_view_degrees=None, wall_distance=2.0)

    assert shown().depth_from == ""
    visit.subject = examples()[0].subject()
    true = shown()
    assert true.depth_from == "the depth map"
    visit.subject = replace(visit.subject, depth=None)
    wall = shown()
    assert wall.depth_from == "unknown: the picture hangs on a wall at 2"
    assert wall.scene != true.scene
    studio.previews.network = lambda image: image.mean(0) + 2
    try:
        assert shown().depth_from == "the depth network"
    finally:
        studio.previews.network = None


def test_a_file_without_record_is_not_replayed(tmp_path: Path, studio: Studio) -> None:
    plain = tmp_path / "plain.mp4"
    write_mp4(plain, np.zeros((2, 16, 16, 3), np.uint8), 8.0)
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\nfile:///etc/passwd\n")
    for path, message in ((plain, "film: carries no record"), (playlist, "film: its content is no mp4")):
        with pytest.raises(ValueError, match=message) as error:
            Replay.from_file(path, "film", LIMITS)
        assert str(tmp_path) not in str(error.value)
