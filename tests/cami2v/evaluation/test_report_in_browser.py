"""The report in a real browser: nothing is loaded, links lead to clips, videos seek, paths turn, lines are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from cami2v.evaluation.folder import EvaluationFolder, write_json
from cami2v.evaluation.measures.epipolar import EpipolarErrors
from cami2v.evaluation.report import ReportOptions, report
from cami2v.video import write_mp4
from tests.cami2v.evaluation.reported import BOOTSTRAP, FRAMES, POSES, write_measured
from tests.chromium import Seen, canvas_pixels, chromium_page, video_level, wait_until

pytestmark = pytest.mark.browser

EPIPOLAR = EpipolarErrors(
    off_pixels=2.0, max_error_to_diagonal=0.05, min_matches=16, max_features=100, ransac_pixels=4.0, still_pixels=0.5
)
POINTS = [[0.25, 0.25], [0.5, 0.75]]


def evaluated(root: Path) -> EvaluationFolder:
    """Two clips whose frames are told apart by their grey level; the camera walks sideways, so lines lie level."""
    folder = write_measured(root, {"a": [1.0, 2.0], "b": [None, None]}, truth={"a": [0.1, 0.1], "b": [0.1, 0.1]})
    levels = np.linspace(40, 220, FRAMES).round().astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (FRAMES, 48, 72, 3))
    shown = {"frames": [0, 3], "points": POINTS, "partners": POINTS}
    for video_set in ("ground_truth", "generated"):
        for clip in ("a", "b"):
            write_mp4(folder.video(video_set, clip), frames, 8, crf=1)
            row: dict[str, object] = {"clip_id": clip, "video_set": video_set, "measured_with": {"inputs": {}}}
            row |= {"failure": "too small", "detail": "", "max_error_pixels": 4.0, "pairs": None, "shown": shown}
            write_json(folder.measurement("epipolar", video_set, clip), row)
    options = ReportOptions(bootstrap=BOOTSTRAP, compatibility="cami2v", clip_pages=True, wandb=None)
    report(folder, [POSES, EPIPOLAR], options)
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, EvaluationFolder, Seen]]:
    """The folder of a report, and a page to open it in."""
    folder = evaluated(tmp_path_factory.mktemp("report"))
    with chromium_page(height=1000) as (page, seen):
        yield page, folder, seen


def test_from_the_table_to_a_clip_and_on(opened: tuple[Page, EvaluationFolder, Seen]) -> None:
    page, folder, seen = opened
    page.goto((folder.root / "report.html").as_uri())
    assert page.locator("h2").first.inner_text() == "Results, in the layout of the published table"
    assert page.locator("table").first.is_visible()
    page.get_by_role("link", name="a", exact=True).click()
    wait_until(page, "window.cami2vClip !== undefined")
    wait_until(page, "[...document.querySelectorAll('video')].every(v => v.readyState >= 2 && !v.error)")
    assert seen.asked == [(folder.root / name).as_uri() for name in ("report.html", "report/a.html")]

    for frame in (3, 1):
        page.evaluate("frame => window.cami2vClip.show(frame)", frame)
        for video_set in ("ground_truth", "generated"):
            level = video_level(page, f".videos video[data-set={video_set}]")
            assert abs(level - np.linspace(40, 220, FRAMES)[frame]) < 8
        assert page.locator(".controls output").inner_text() == f"frame {frame} of 0 to {FRAMES - 1}"

    world = canvas_pixels(page, ".world")
    green = (world[..., 1] > world[..., 0] + 40) & (world[..., 3] > 128)
    assert green.any(), "the estimated path of the true video"
    page.evaluate("window.cami2vClip.world.turn(0.6, 0.2, 1)")
    assert (canvas_pixels(page, ".world") != world).any()

    second = canvas_pixels(page, ".matches figure[data-side='1'] canvas")
    height = second.shape[0]
    drawn = second[:, 3, 3] > 60
    # The camera walks along x: a point's line is level, at its own height.
    rows = np.flatnonzero(drawn) / height
    assert len(rows) >= 2
    assert np.abs(rows[:, None] - [0.25, 0.75]).min(axis=1).max() < 0.02
    assert np.abs(rows[:, None] - [0.25, 0.75]).min(axis=0).max() < 0.02

    page.get_by_role("link", name="next").click()
    wait_until(page, "document.title === 'b'")
    assert "no model" in page.locator("body").inner_text()
    page.get_by_role("link", name="all clips").click()
    wait_until(page, "document.title === 'Evaluation'")
    assert seen.errors == []
