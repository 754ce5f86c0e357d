"""A web server of a shard set on this machine, which misbehaves when told to."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Fault = Literal["missing", "stall", "truncate", "broken"]


class ShardServer(ThreadingHTTPServer):
    """Serves the files of a folder; `faults` holds how often, and how, a file's next requests go wrong."""

    daemon_threads = True

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges = ranges
        self.delay_seconds = 0.0
        self.query = ""
        """Requests with another one are refused."""
        self.first_two: threading.Barrier | None = None
        """The first two shards wait for each other."""
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/set"

    def counts(self) -> Counter[str]:
        """Return how often each file was asked for."""
        return Counter(name for name, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: ShardServer

    def do_GET(self) -> None:
        name, _, query = self.path.removeprefix("/set/").partition("?")
        wanted = self.headers.get("Range")
        self.server.requests.append((name, wanted))
        time.sleep(self.server.delay_seconds)
        shards_asked_for = sum(asked.endswith(".tar") for asked, _ in self.server.requests)
        if self.server.first_two is not None and name.endswith(".tar") and shards_asked_for <= 2:
            self.server.first_two.wait()
        faults = self.server.faults.get(name, [])
        fault = faults.pop(0) if faults else None
        path = self.server.folder / name
        if query != self.server.query:
            self.send_error(403)
            return
        if fault == "missing" or not path.is_file():
            self.send_error(404)
            return
        if fault == "broken":
            self.send_error(503)
            return
        if fault == "stall":
            self.server.stopping.wait(20)
            return
        data = path.read_bytes()
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "") if self.server.ranges else None
        if span:
            first, last = int(span[1]), int(span[2])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}")
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "truncate" else data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving(folder: Path, *, ranges: bool = True) -> Iterator[ShardServer]:
    server = ShardServer(folder, ranges=ranges)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
