"""Uploads to a hub: one commit with every file, or one line. The hub is a small server on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from cami2v.checkpoints.upload import push_folder

REPOSITORY = "someone/camera"


class UploadHub:
    """What was asked of the server, and the status it answers with."""

    def __init__(self) -> None:
        self.created: list[dict[str, object]] = []
        self.committed: dict[str, bytes] = {}
        self.status = 200
        self.address = ""


@contextmanager
def serving(hub: UploadHub) -> Iterator[UploadHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply({"id": REPOSITORY, "sha": "0" * 40, "siblings": []})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self.reply({"url": f"{hub.address}/{REPOSITORY}", "id": REPOSITORY})
            elif "/preupload/" in self.path:
                files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                         for each in json.loads(body)["files"]]  # fmt: skip
                self.reply({"files": files})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        hub.committed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.reply(
                    {"success": True, "commitOid": "1" * 40, "commitUrl": f"{hub.address}/{REPOSITORY}/commit/1"}
                )
            else:
                self.reply({})

        def reply(self, content: object) -> None:
            data = json.dumps(content).encode()
            self.send_response(hub.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "README.md").write_text("---\nlibrary_name: cami2v\n---\n# A model\n")
    (exported / "pipeline.json").write_text("{}")
    return exported


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with serving(UploadHub()) as running:
        yield running


def test_a_folder_becomes_one_commit(hub: UploadHub, folder: Path) -> None:
    lines: list[str] = []
    address = push_folder(folder, REPOSITORY, private=True, endpoint=hub.address, say=lines.append)
    assert address == f"{hub.address}/{REPOSITORY}/commit/1"
    # An older client says private=true, a newer one visibility=private.
    assert "private" in json.dumps(hub.created[0]).replace('"private": false', "")
    assert hub.committed == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert lines == [f"uploaded {folder} to {address}"]


def test_a_hub_that_refuses_is_named_in_one_line(hub: UploadHub, folder: Path) -> None:
    hub.status = 403
    with pytest.raises(ValueError, match=f"{REPOSITORY}: {hub.address} answered with status 403; log in"):
        push_folder(folder, REPOSITORY, private=False, endpoint=hub.address)
    assert not hub.committed


def test_no_hub_is_named_in_one_line(hub: UploadHub, folder: Path) -> None:
    with pytest.raises(ValueError, match=f"{REPOSITORY}: no connection to http://127.0.0.1:9"):
        push_folder(folder, REPOSITORY, private=False, endpoint="http://127.0.0.1:9")
    constants.HF_HUB_OFFLINE = True
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        push_folder(folder, REPOSITORY, private=False, endpoint=hub.address)
