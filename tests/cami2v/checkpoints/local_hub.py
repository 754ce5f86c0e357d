"""A server that speaks the few words of the Hugging Face hub that a download needs, and fails on request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has, how it behaves, and what it was asked."""

    repository: str = "MuteApo/CamI2V"
    """spaces/<name> for a space."""
    files: dict[str, bytes] = field(default_factory=dict)
    licence: str | None = "mit"
    status: int | None = None
    """Answer everything with this status."""
    error: str | None = None
    """The hub's own word for it (X-Error-Code)."""
    hold_after: int | None = None
    """Send so many bytes of a file, then nothing more until `released`."""
    claimed: dict[str, str] = field(default_factory=dict)
    """Another sha256 than the content has, by file."""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every file request."""
    released: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def sha256(self, name: str) -> str:
        return self.claimed.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def description(self) -> dict[str, object]:
        return {
            "id": self.repository,
            "modelId": self.repository,
            "sha": COMMIT,
            "private": False,
            "gated": False,
            "tags": [f"license:{self.licence}"] if self.licence else [],
            "siblings": [
                {
                    "rfilename": name,
                    "size": len(content),
                    "blobId": "0" * 40,
                    "lfs": {"sha256": self.sha256(name), "size": len(content), "pointerSize": 135},
                }
                for name, content in self.files.items()
            ],
        }


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(send_body=False)

        def do_GET(self) -> None:
            self.answer(send_body=True)

        def answer(self, *, send_body: bool) -> None:
            path = urlparse(self.path).path
            asked = f"/api/{'' if hub.repository.startswith('spaces/') else 'models/'}{hub.repository}"
            if hub.status is not None:
                headers = {"X-Error-Code": hub.error} if hub.error else {}
                self.reply(hub.status, b"{}", headers, send_body)
            elif path == asked or path.startswith(f"{asked}/revision/"):
                self.reply(200, json.dumps(hub.description()).encode(), {"Content-Type": "application/json"}, send_body)
            elif path.startswith(f"/{hub.repository}/resolve/{COMMIT}/"):
                name = path.rpartition("/")[2]
                headers = {
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-Etag": f'"{hub.sha256(name)}"',
                    "X-Linked-Size": str(len(hub.files[name])),
                    # Another host: the hub sends large files from elsewhere.
                    "Location": f"{hub.address.replace('127.0.0.1', 'localhost')}/storage/{name}",
                }
                self.reply(302, b"", headers, send_body)
            elif path.startswith("/storage/"):
                self.send_file(hub.files[path.rpartition("/")[2]])
            else:
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, send_body)

        def reply(self, status: int, body: bytes, headers: dict[str, str], send_body: bool) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if send_body:
                self.wfile.write(body)

        def send_file(self, content: bytes) -> None:
            asked = self.headers.get("Range")
            hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = len(content) if hub.hold_after is None else hub.hold_after
            self.wfile.write(content[start:end])
            if hub.hold_after is not None:
                self.wfile.flush()
                hub.released.wait(60)
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            """Be quiet."""

    return Handler
