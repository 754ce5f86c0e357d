"""Downloads from a hub: complete and verified, or one line and nothing that looks finished."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from cami2v.checkpoints.hub import HubFile, ask_hub, fetch
from tests.cami2v.checkpoints.local_hub import COMMIT, Hub, serving

ROOT = Path(__file__).parents[3]
NAME = "256_cami2v.pt"
# More than the hub library writes at once (10 MiB), so that a partial file has something in it.
CONTENT = np.random.default_rng(0).bytes(24 * 2**20)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(Hub(files={NAME: CONTENT})) as running:
        yield running


def described(hub: Hub) -> HubFile:
    return ask_hub(hub.repository, endpoint=hub.address)[NAME]


def fetched(hub: Hub, target: Path) -> list[str]:
    lines: list[str] = []
    fetch(described(hub), target, endpoint=hub.address, say=lines.append)
    return lines


def test_the_hub_describes_its_files(hub: Hub) -> None:
    assert described(hub) == HubFile(
        repository=hub.repository, path=NAME, revision=COMMIT, size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(), licence="mit", gated=False,
    )  # fmt: skip


def test_a_file_arrives_whole_and_is_not_fetched_twice(hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "weights" / NAME
    fetched(hub, target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [NAME]
    assert fetched(hub, target) == [f"already there, verified: {target}"]
    assert hub.ranges == [None]


def test_a_space_has_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(Hub(repository="spaces/somebody/demo", files={NAME: b"weights"})) as space:
        assert described(space).repository == "spaces/somebody/demo"
        fetched(space, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == b"weights"


def test_a_killed_download_continues_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.hold_after = 20 * 2**20
    code = (
        "import sys; from pathlib import Path; from cami2v.checkpoints.hub import ask_hub, fetch; "
        f"fetch(ask_hub({hub.repository!r}, endpoint={hub.address!r})[{NAME!r}], Path(sys.argv[1]), "
        f"endpoint={hub.address!r})"
    )
    target = tmp_path / NAME
    environment = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    downloading = subprocess.Popen([sys.executable, "-c", code, str(target)], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob("*.partial")) and time.monotonic() < deadline:
        assert downloading.poll() is None
        time.sleep(0.1)
    downloading.kill()
    downloading.wait()
    (partial,) = tmp_path.glob(".*.partial")
    held = partial.stat().st_size
    assert 0 < held < len(CONTENT)
    assert not target.exists()

    hub.hold_after = None
    assert fetched(hub, target)[0].startswith("continuing after ")
    assert hub.ranges == [None, f"bytes={held}-"]
    assert target.read_bytes() == CONTENT
    assert not list(tmp_path.glob(".*.partial"))


def test_damaged_content_is_detected_and_removed(hub: Hub, tmp_path: Path) -> None:
    hub.claimed[NAME] = "0" * 64
    with pytest.raises(ValueError, match=r"arrived damaged \(its sha256 is .*, the hub says 0{64}\) and was removed"):
        fetched(hub, tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"exists, but it has 4 bytes, the hub says {len(CONTENT)}; move it away"):
        fetched(hub, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == b"mine"


def test_too_little_space_is_found_before_the_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**7))
    with pytest.raises(
        ValueError, match=r"0.03 GB needed, 0.01 GB free; make room, or choose another folder with --to"
    ):
        fetched(hub, tmp_path / NAME)
    assert hub.ranges == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, "RepoNotFound", "has no such repository, or it is private (log in with `hf auth login`)"),
        (404, "RevisionNotFound", "has no such revision; leave --revision out for the newest"),
        (403, "GatedRepo", "gated; accept its terms at http"),
        (500, None, "answered with status 500; try again later"),
    ],
)
def test_a_refusal_is_one_line(hub: Hub, status: int, error: str | None, message: str) -> None:
    hub.status, hub.error = status, error
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ask_hub(hub.repository, endpoint=hub.address)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(hub.repository)


def test_no_connection_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^a/b: no connection to http://127.0.0.1:9 \(ConnectError"):
        ask_hub("a/b", endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, so the hub is not asked; unset it"):
        ask_hub(hub.repository, endpoint=hub.address)
