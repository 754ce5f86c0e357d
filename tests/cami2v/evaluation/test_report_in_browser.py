"""The report in a real browser: nothing is loaded, links lead to clips, videos seek, paths turn, lines are drawn."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, sync_playwright

from cami2v.evaluation.folder import EvaluationFolder, write_json
from cami2v.evaluation.measures.epipolar import EpipolarErrors
from cami2v.evaluation.report import ReportOptions, report
from cami2v.video import write_mp4
from tests.cami2v.evaluation.reported import BOOTSTRAP, FRAMES, POSES, write_measured

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
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
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, EvaluationFolder, list[str]]]:
    """The summary page, its folder, and what the browser asked for."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        missing = f"needs one of {', '.join(BROWSERS)}; on Debian: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    folder = evaluated(tmp_path_factory.mktemp("report"))
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    with sync_playwright() as play:
        # No sandbox: tests run as root in containers. /dev/shm is small there.
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = chromium.new_page(viewport={"width": 1300, "height": 1000})
        page.on("request", note)
        page.on("pageerror", lambda error: asked.append(f"error {error}"))
        yield page, folder, asked
        chromium.close()


def canvas(page: Page, selector: str) -> np.ndarray:
    address = page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"), np.int64)


def wait_until(page: Page, expression: str) -> None:
    """Wait for a value that is true; `wait_for_function` evaluates text in the page, which its policy forbids."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"after 20 s still not: {expression}")


def test_from_the_table_to_a_clip_and_on(opened: tuple[Page, EvaluationFolder, list[str]]) -> None:
    page, folder, asked = opened
    page.goto((folder.root / "report.html").as_uri())
    assert page.locator("h2").first.inner_text() == "Results, in the layout of the published table"
    assert page.locator("table").first.is_visible()
    page.get_by_role("link", name="a", exact=True).click()
    wait_until(page, "window.cami2vClip !== undefined")
    wait_until(page, "[...document.querySelectorAll('video')].every(v => v.readyState >= 2 && !v.error)")
    files = [url for url in asked if not url.startswith("blob:")]
    assert files == [(folder.root / name).as_uri() for name in ("report.html", "report/a.html")]

    for frame in (3, 1):
        page.evaluate("frame => window.cami2vClip.show(frame)", frame)
        wait_until(page, "[...document.querySelectorAll('video')].every(v => !v.seeking && v.readyState >= 2)")
        for video in page.locator(".videos video").all():
            level = video.evaluate(
                """video => { const c = document.createElement("canvas"); c.width = c.height = 8;
                const pen = c.getContext("2d"); pen.drawImage(video, 0, 0, 8, 8);
                return pen.getImageData(4, 4, 1, 1).data[1]; }"""
            )
            assert abs(level - np.linspace(40, 220, FRAMES)[frame]) < 8
        assert page.locator(".controls output").inner_text() == f"frame {frame} of 0 to {FRAMES - 1}"

    world = canvas(page, ".world")
    green = (world[..., 1] > world[..., 0] + 40) & (world[..., 3] > 128)
    assert green.any(), "the estimated path of the true video"
    page.evaluate("window.cami2vClip.world.turn(0.6, 0.2, 1)")
    assert (canvas(page, ".world") != world).any()

    second = canvas(page, ".matches figure[data-side='1'] canvas")
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
    assert not [each for each in asked if each.startswith("error")]
