"""Pages in a real headless Chromium, as a user's browser shows them."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the browser asked for, and the errors of the page's scripts."""

    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def chromium_page(*, width: int = 1300, height: int = 900) -> Iterator[tuple[Page, Seen]]:
    """Open an empty page; without a browser the test is skipped, in CI it fails."""
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        missing = f"needs one of {', '.join(_BROWSERS)}; on Debian: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    seen = Seen()
    with sync_playwright() as play:
        # No sandbox: tests run as root in containers. /dev/shm is small there.
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.on("request", lambda request: None if request.url.startswith("blob:") else seen.asked.append(request.url))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        yield page, seen
        chromium.close()


def wait_until(page: Page, expression: str) -> None:
    """Wait for a value that is true; `wait_for_function` evaluates text in the page, which its policy forbids."""
    # Long: on a busy machine a page has waited for more than 20 s for its turn.
    for _ in range(1800):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"after 90 s still not: {expression}; the page says: {page.inner_text('body')[-1500:]}")


def canvas_pixels(page: Page, selector: str) -> np.ndarray:
    """Return what is drawn on the first canvas of that name, RGBA."""
    address = page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(image.convert("RGBA"), np.int64)


def video_level(page: Page, selector: str) -> int:
    """Return the green level that a video shows in the middle of its lower half, once it has come to its frame."""
    wait_until(page, f"(v => !v.seeking && v.readyState >= 2)(document.querySelector({selector!r}))")
    return page.locator(selector).first.evaluate(
        """video => { const canvas = document.createElement("canvas");
        canvas.width = 64; canvas.height = 32;
        const pen = canvas.getContext("2d"); pen.drawImage(video, 0, 0, 64, 32);
        return pen.getImageData(32, 24, 1, 1).data[1]; }"""
    )
