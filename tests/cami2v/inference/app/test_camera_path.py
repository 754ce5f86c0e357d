"""The editor's fields as a path: the same as its description makes anywhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cami2v.inference.app.camera_path import KEY_FRAMES, Editor, one_more
from cami2v.inference.app.path_fields import number, optional
from cami2v.trajectories.choose import choose, open_path

PLAIN = Editor(
    kind="preset", motion="orbit_right", together="", amount=1.0, distance=1.0, table=KEY_FRAMES,
    interpolation="smooth", uploaded=None, ease="linear", speed=1.0, scale=1.0, start=0.0, end=1.0, reverse=False,
    loop=False, condition_frame=0,
)  # fmt: skip


def test_plain_fields_are_the_preset() -> None:
    preset = choose("orbit_right", frames=5, extent=None)
    torch.testing.assert_close(PLAIN.cameras(5).world_to_camera, preset.world_to_camera, rtol=0, atol=1e-12)
    assert PLAIN.description() == {"preset": "orbit_right", "extent": 0.5, "distance": 1.0}
    assert PLAIN.name() == "orbit_right"


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 2.0}, {"together": "zoom_in"}, {"ease": "ease_in"}, {"speed": 0.5}, {"scale": 2.0}, {"start": 0.5},
        {"end": 0.5}, {"reverse": True}, {"loop": True}, {"kind": "key-frames"}, {"condition_frame": 3},
        {"distance": 2.0},
    ],
)  # fmt: skip
def test_every_field_counts_and_is_described(change: dict[str, Any]) -> None:
    editor = replace(PLAIN, **change)
    cameras = editor.cameras(5).world_to_camera
    assert not torch.allclose(cameras, PLAIN.cameras(5).world_to_camera)
    described = {**editor.description(), "condition_frame": editor.condition_frame}
    again = open_path(described, extent=None, files=False).sample(5, default_frames=5)
    torch.testing.assert_close(cameras, again.world_to_camera, rtol=0, atol=1e-12)


def test_a_file_is_edited_like_a_preset() -> None:
    uploaded = (open_path("zoom_in", extent=0.4), "walk")
    editor = replace(PLAIN, kind="file", uploaded=uploaded, scale=0.5, reverse=True)
    assert editor.name() == "walk"
    expected = torch.tensor([0.0, -0.1, -0.2], dtype=torch.float64)
    torch.testing.assert_close(editor.cameras(3).camera_to_world()[:, 2, 3], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "file"}, "no file yet"),
        ({"kind": "key-frames", "table": [[0] * 8]}, "1 key-frames; give two or more"),
        ({"kind": "key-frames", "table": [[0] * 8, ["x"] + [0] * 7]}, "row 2, at: got 'x', expected a number"),
        ({"kind": "key-frames", "table": [["", 1, 0, 0, 0, 0, 0, 1], [1] * 8]}, "row 1, at: got ''"),
        ({"kind": "key-frames", "table": [[0] * 7 + [1], [float("nan")] + [1] * 7]}, "row 2, at"),
        ({"kind": "key-frames", "table": [[0] * 8] * 65}, "65 rows; at most 64"),
        ({"motion": "dolly_zoom_in", "amount": 4.0}, "reaches the subject"),
        ({"motion": "/etc/passwd"}, "is unknown"),
    ],
)
def test_impossible_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **change).cameras(5)


def test_one_more_key_frame_leaves_the_others_on_the_path() -> None:
    table = one_more(KEY_FRAMES)
    assert [row[0] for row in table] == [0, 0.3333, 0.6667, 1]
    assert table[-1][1:] == table[-2][1:] == list(KEY_FRAMES[-1][1:])
    assert one_more([]) == [[1, 0, 0, 0, 0, 0, 0, 1]]


def test_empty_cells_and_rows_are_nothing() -> None:
    table: list[list[Any]] = [[0, *[None] * 7], ["", *[""] * 7], [1, None, None, 0.5, "", "", "", ""]]
    cameras = replace(PLAIN, kind="key-frames", table=table, interpolation="linear").cameras(3)
    assert cameras.zoom is None
    torch.testing.assert_close(cameras.camera_to_world()[:, 2, 3], torch.tensor([0, 0.25, 0.5], dtype=torch.float64))


def test_a_deleted_number_is_named() -> None:
    assert number(2, "speed") == 2.0
    with pytest.raises(ValueError, match="speed: is empty; give a number"):
        number(None, "speed")
    assert [optional(value, "view", 175.0) for value in (None, 0, 68)] == [None, None, 68.0]
    for wrong in (-1, 176):
        with pytest.raises(ValueError, match="view: got .*; choose a number above 0, at most 175"):
            optional(wrong, "view", 175.0)
