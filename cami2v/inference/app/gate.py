"""In front of the server: what a request may be, and what browsers are told of every answer."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Browsers load nothing from elsewhere, whatever got into the page."""

HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
ROOM_FOR_HEADERS = 2**16
"""Of an upload, beside its file."""
FILE_NAME = re.compile(rb'filename\*?=(?:"((?:[^"\\]|\\.)*)"|([^;\r\n]*))', re.IGNORECASE)
ELSEWHERE = re.compile(r"/(file=|proxy=)\s*(https?:|[a-z][a-z0-9+.-]*://)|/proxy=", re.IGNORECASE)
"""Paths by which the server would fetch what a visitor names."""
ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*:", re.IGNORECASE)
CALLS = ("/queue/join", "/run/predict")
POSTS = (*CALLS, "/upload", "/cancel", "/reset", "/login")
"""What the page sends. Gradio's server takes more: calls by programs, edits of its own code while it is developed."""
MOST_OF_A_CALL = 2**20
"""Bytes of what the fields of a page say."""
NOT_FOUND, FORBIDDEN, TOO_LARGE, BAD = 404, 403, 413, 400


class Gate:
    """ASGI middleware.

    Args:
        application: the server.
        most_bytes: of an upload.
        hosts: names under which the server may be asked for; None: any. It keeps other sites from reaching a server on
            the loopback under a name of their own (DNS rebinding).
    """

    def __init__(self, app: Application, *, most_bytes: int, hosts: frozenset[str] | None) -> None:
        self.application = app
        self.most_bytes = most_bytes
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self.hosts is not None and _host(headers.get(b"host", b"")) not in self.hosts:
            await _refuse(send, FORBIDDEN, "not known under this name; use the address that the app printed")
        elif ELSEWHERE.search(scope["path"]):
            await _refuse(send, FORBIDDEN, "nothing is fetched from elsewhere")
        elif scope["method"] == "POST":
            await self._post(scope, receive, send, headers)
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, NOT_FOUND, "nothing is sent there")
        else:
            await self.application(scope, receive, _with_headers(send))

    async def _post(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> None:
        """Read what is sent whole, judge it, and hand it on."""
        path = scope["path"].rstrip("/")
        if not path.endswith(POSTS):
            await _refuse(send, NOT_FOUND, "nothing is sent there")
            return
        upload = path.endswith("/upload")
        most = self.most_bytes + ROOM_FOR_HEADERS if upload else MOST_OF_A_CALL
        body = await _body(receive, headers, most)
        if body is None:
            await _refuse(send, TOO_LARGE, self._too_large() if upload else "more than the page ever sends")
            return
        wrong = _wrong_name(body, headers) if upload else _fetched(body) if path.endswith(CALLS) else None
        if wrong is not None:
            await _refuse(send, BAD, wrong)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self.application(scope, again, _with_headers(send))

    def _too_large(self) -> str:
        return f"File size exceeded maximum allowed size: at most {self.most_bytes // 2**20} MB are taken"


def _host(value: bytes) -> str:
    name = value.decode("latin-1").lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


async def _body(receive: Receive, headers: dict[bytes, bytes], most: int) -> bytes | None:
    """Read a body; None for one that is too large, or breaks off."""
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > most:
        return None
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most or message["type"] == "http.disconnect":
            return None
    return bytes(body)


def _wrong_name(body: bytes, headers: dict[bytes, bytes]) -> str | None:
    """Say which file of a form is named so that it leads elsewhere."""
    for name in _file_names(body, headers):
        if _leads_elsewhere(name):
            shown = re.sub(r"[^\w.\- /\\]", "_", name.decode(errors="replace"))[:60]
            return f"the file name {shown!r} leads to another folder; rename the file"
    return None


def _fetched(body: bytes) -> str | None:
    """Say which file of a call the server would have to fetch from an address."""
    try:
        waiting = [json.loads(body or b"{}")]
    except (ValueError, RecursionError):
        return "not what the page sends"
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and ADDRESS.match(path):
                return "files are handed in, not fetched from an address"
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return None


def _file_names(body: bytes, headers: dict[bytes, bytes]) -> list[bytes]:
    """Return the names of a form's files, as they were sent."""
    found = re.search(rb'boundary="?([^";]+)"?', headers.get(b"content-type", b""))
    if found is None:
        return []
    parts = body.split(b"--" + found[1])[1:]
    heads = [part.partition(b"\r\n\r\n")[0] for part in parts]
    return [quoted or bare for head in heads for quoted, bare in FILE_NAME.findall(head)]


def _leads_elsewhere(name: bytes) -> bool:
    plain = re.sub(rb"%2f", b"/", re.sub(rb"%5c", b"\\\\", name, flags=re.IGNORECASE), flags=re.IGNORECASE)
    return any(each in plain for each in (b"/", b"\\", b"\0")) or plain.strip() in (b".", b"..")


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return answer


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
