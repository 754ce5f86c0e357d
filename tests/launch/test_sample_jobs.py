"""Lists of jobs for `cami2v sample`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from launch.sample_jobs import JobRow, jobs_of, jobs_of_clips

TEMPLATE = JobRow(
    image=None, caption="as said", negative_caption="", trajectory=["static", "pan_left"], extent=0.5, seed=3
)


def test_a_folder_takes_captions_from_beside_its_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.md", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "b.txt").write_text("a bridge\n")
    jobs = jobs_of(tmp_path, None, TEMPLATE)
    assert [(job.name, job.caption) for job in jobs] == [("a", "as said"), ("b", "a bridge")]
    assert jobs[0].trajectory == ("static", "pan_left")
    assert jobs[0].seed == (3,)


def test_lists_in_both_formats_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text(
        "image,caption,trajectory,seed,extent\nroom.png,a room,orbit_left;dolly_in,0;1,0.25\nsub/room.png,,,,\n"
    )
    listed = [
        {"image": "room.png", "caption": "a room", "trajectory": ["orbit_left", "dolly_in"], "seed": [0, 1],
         "extent": 0.25},
        {"image": "sub/room.png"},
    ]  # fmt: skip
    (tmp_path / "jobs.json").write_text(json.dumps(listed))
    first, second = jobs_of(None, tmp_path / "jobs.csv", TEMPLATE)
    assert [first, second] == jobs_of(None, tmp_path / "jobs.json", TEMPLATE)
    assert first.image == tmp_path / "room.png"
    assert (first.trajectory, first.seed, first.extent) == (("orbit_left", "dolly_in"), (0, 1), 0.25)
    assert (second.name, second.caption, second.seed) == ("room-2", "as said", (3,))


def test_depth_maps_belong_to_their_images(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    for name in ("a.png", "b.png", "depth/a.npy", "depth/b.png"):
        (tmp_path / name).touch()
    maps = dataclasses.replace(TEMPLATE, depth_map=tmp_path / "depth")
    assert [job.depth_map for job in jobs_of(tmp_path, None, maps)] == [
        tmp_path / "depth/a.npy",
        tmp_path / "depth/b.png",
    ]
    assert jobs_of_clips(["b"], maps)[0].depth_map == tmp_path / "depth/b.png"
    (tmp_path / "jobs.csv").write_text("image,depth_map\nb.png,depth/a.npy\na.png,\n")
    listed = jobs_of(None, tmp_path / "jobs.csv", maps)
    assert [job.depth_map for job in listed] == [tmp_path / "depth/a.npy"] * 2
    with pytest.raises(ValueError, match="depth_map=.* has no map c"):
        jobs_of(tmp_path / "c.png", None, maps)


def test_clips_go_along_their_own_cameras_where_nothing_else_is_said() -> None:
    unsaid = dataclasses.replace(TEMPLATE, trajectory=None)
    assert jobs_of_clips(["x"], unsaid)[0].trajectory == ("own",)
    assert jobs_of_clips(["x"], TEMPLATE)[0].trajectory == ("static", "pan_left")
    assert jobs_of(Path("room.png"), None, unsaid)[0].trajectory == ("orbit_right",)
    with pytest.raises(ValueError, match="trajectory=own: the cameras of a clip"):
        jobs_of(Path("room.png"), None, dataclasses.replace(TEMPLATE, trajectory="own"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("jobs.csv", "image,captoin\na.png,x\n", r"jobs.csv\[0\].captoin: no such key .* did you mean 'caption'"),
        ("jobs.csv", "image,seed\na.png,one\n", "seed: got 'one', expected a number"),
        ("jobs.csv", "caption\nx\n", r"jobs.csv\[0\].image: required"),
        ("jobs.json", "{}", "expected a list of jobs"),
        ("jobs.json", "[1", "cannot be read"),
        ("jobs.json", '[{"image": "a.png", "seed": []}]', "seed: an empty list"),
    ],
)
def test_wrong_lists_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        jobs_of(None, tmp_path / name, TEMPLATE)


def test_one_place_of_images_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image and jobs: got neither"):
        jobs_of(None, None, TEMPLATE)
    with pytest.raises(ValueError, match="image and jobs: got both"):
        jobs_of(tmp_path, tmp_path, TEMPLATE)
    with pytest.raises(ValueError, match="no picture in that folder"):
        jobs_of(tmp_path, None, TEMPLATE)
