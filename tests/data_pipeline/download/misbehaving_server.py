"""A local HTTP server whose behaviour is chosen by the name of the file asked for."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<html><head><title>Nothing here</title></head><body>no video</body></html>"


class VideoServer(ThreadingHTTPServer):
    """Serves one video under any name; `gets` counts requests, `ranges` keeps the Range headers, both by name."""

    daemon_threads = True

    def __init__(self, video: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.video = video
        self.gets: Counter[str] = Counter()
        self.ranges: dict[str, list[str]] = {}
        self.active = self.most_active = 0
        self.counting = threading.Lock()
        self.closing = threading.Event()

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}.mp4"


class Handler(BaseHTTPRequestHandler):
    server: VideoServer
    protocol_version = "HTTP/1.1"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2].removesuffix(".mp4")

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        try:
            self.answer(body=True)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, *, body: bool) -> None:
        name = self.name
        behaviour = name.partition("-")[0]
        asked = self.headers.get("Range")
        with self.server.counting:
            self.server.gets[name] += 1
            earlier = self.server.gets[name] - 1
            self.server.ranges.setdefault(name, []).extend([asked] if asked else [])
        codes = {"missing": 404, "gone": 410, "limited": 429, "forbidden": 403, "broken": 503}
        if behaviour in codes or (behaviour == "busy" and earlier < 2):
            self.reply(codes.get(behaviour, 503), "text/html", PAGE, body)
        elif behaviour == "page":
            self.reply(200, "text/html", PAGE, body)
        elif behaviour == "liar":
            self.reply(200, "video/mp4", PAGE * 50, body)
        else:
            self.send_video(behaviour, earlier, asked, body)

    def send_video(self, behaviour: str, earlier: int, asked: str | None, body: bool) -> None:
        video = self.server.video
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        start = int(match[1]) if match else 0
        self.send_response(206 if match else 200)
        self.send_header("Content-Type", "video/mp4")
        if behaviour == "unannounced":
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(video) - start))
            self.send_header("Accept-Ranges", "bytes")
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(video) - 1}/{len(video)}")
        self.end_headers()
        if not body:
            return
        rest = video[start:]
        # The first request only looks at the type; `cut` and `stall` fail the one after it.
        if behaviour == "unannounced" or (behaviour == "cut" and earlier < 2) or behaviour == "alwayscut":
            self.wfile.write(rest[: len(rest) // 2])
            self.close_connection = True
        elif (behaviour == "stall" and earlier < 2) or behaviour == "dead":
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            self.server.closing.wait(20)
            self.close_connection = True
        elif behaviour == "slow":
            # yt-dlp's first request looks at the type and hangs up, which the server sees late.
            self.send_slowly(rest, len(video) // 20, transfer=int(earlier > 0))
        else:
            self.wfile.write(rest)

    def send_slowly(self, rest: bytes, step: int, *, transfer: int) -> None:
        with self.server.counting:
            self.server.active += transfer
            self.server.most_active = max(self.server.most_active, self.server.active)
        sent = 0
        try:
            while sent + step < len(rest) and not self.server.closing.wait(0.15):
                self.wfile.write(rest[sent : sent + step])
                self.wfile.flush()
                sent += step
        finally:
            # Before the last bytes: with them the client is free to begin another download.
            with self.server.counting:
                self.server.active -= transfer
        self.wfile.write(rest[sent:])

    def reply(self, code: int, kind: str, content: bytes, body: bool) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(video: bytes) -> Iterator[VideoServer]:
    server = VideoServer(video)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
