"""The page holds everything it shows."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from cami2v.html_report import HtmlReport


def test_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    page = HtmlReport("a < b")
    page.heading("Videos")
    video = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    page.clips({"truth": video}, height=16, frames_per_second=4.0)
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    page.figure(figure, "a curve")
    page.table(["x", "y"], [["one", "2"]])
    page.data("numbers", {"text": "</script><script>alert(1)</script>", "value": 0.5})
    page.script("document.title = 'ran'")
    page.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<title>a &lt; b</title>" in text
    assert not re.search(r"(src|href)=.(?!data:|#)", text.replace('xlink:href="#', ""))
    encoded = re.search(r"data:image/webp;base64,([^\"]+)", text)
    assert encoded is not None
    image = Image.open(io.BytesIO(base64.b64decode(encoded[1])))
    frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert np.array_equal(np.stack(frames), video)
    data = re.search(r'<script type="application/json" class="numbers">(.*?)</script>', text)
    assert data is not None
    assert json.loads(data[1]) == {"text": "</script><script>alert(1)</script>", "value": 0.5}
    # The page's policy allows its own scripts only, by their hashes.
    digest = base64.b64encode(hashlib.sha256(b"document.title = 'ran'").digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text
    assert "default-src 'none'" in text
