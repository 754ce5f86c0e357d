"""Settings are checked; splits share no source; rooms are shared only on request."""

from __future__ import annotations

import pytest

from data_pipeline.synthetic.rooms import furnish_room
from data_pipeline.synthetic.world import camera_path, plan_sources
from tests.data_pipeline.synthetic.worlds import small_world


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rooms", 0),
        ("width", 161),
        ("height", 16),
        ("sources", {}),
        ("sources", {"trian": 3}),
        ("sources", {"train": 0}),
        ("path_kinds", ("dolly", "zoom")),
        ("path_kinds", ()),
        ("motion_extent", 0.0),
        ("time_lapse", float("nan")),
        ("horizontal_fov_degrees", (70.0, 60.0)),
        ("pose_unit_metres", (0.0, 1.0)),
        ("crf", 60),
        ("supersampling", 0),
        ("lead_frames", -1),
    ],
)
def test_impossible_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"synthetic world: {field}=.*must be"):
        small_world(**{field: value})


@pytest.mark.parametrize("shared", [True, False])
def test_splits_share_no_source_and_no_clip(shared):
    sources = plan_sources(small_world(shared_rooms=shared))
    assert len({source.source_id for source in sources}) == len(sources) == 5
    clips = [clip.clip_id for source in sources for clip in source.clips]
    assert len(set(clips)) == len(clips) == 10
    rooms = {split: {s.room_name for s in sources if s.split == split} for split in ("train", "validation", "test")}
    if shared:
        assert rooms["test"] <= rooms["train"]
        assert rooms["validation"] <= rooms["train"]
    else:
        assert rooms["train"].isdisjoint(rooms["test"] | rooms["validation"])
        assert rooms["test"].isdisjoint(rooms["validation"])


def test_paths_through_a_shared_room_differ():
    world = small_world()
    sources = [s for s in plan_sources(world) if s.room_name.endswith("-0")]
    starts = {camera_path(world, s, clip)[0].tobytes() for s in sources for clip in s.clips}
    assert len(starts) == sum(len(s.clips) for s in sources)


def test_seeds_make_other_worlds():
    first, second = plan_sources(small_world(seed=1))[0], plan_sources(small_world(seed=2))[0]
    assert first.source_id != second.source_id
    assert first.clips[0].clip_id != second.clips[0].clip_id
    assert furnish_room(first.room_name).width != furnish_room(second.room_name).width
