"""What reaches the app's server, and what it tells browsers."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from cami2v.inference.app.gate import Gate

LIMIT = 1000
FORM = "multipart/form-data; boundary=line"


def asked(
    method: str, path: str, body: bytes = b"", *, host: str = "127.0.0.1:7860", kind: str = "application/json"
) -> tuple[int, bytes, dict[str, str]]:
    """Send a request through the gate to a server that returns what it was sent."""
    sent: list[MutableMapping[str, Any]] = []
    chunks = [body[:10], body[10:]]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def server(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        whole = (await receive())["body"] if scope["method"] == "POST" else b"page"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": whole})

    gate = Gate(server, most_bytes=LIMIT, hosts=frozenset({"127.0.0.1", "localhost", "::1"}))
    headers = [(b"host", host.encode()), (b"content-type", kind.encode())]
    asyncio.run(gate({"type": "http", "method": method, "path": path, "headers": headers}, receive, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], sent[1]["body"], told


def form(name: str, content: bytes = b"x") -> bytes:
    head = f'--line\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--line--\r\n"


def test_pages_pass_and_browsers_are_told_to_load_nothing_from_elsewhere() -> None:
    status, body, headers = asked("GET", "/")
    assert (status, body) == (200, b"page")
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/gradio_api/file=http://10.0.0.1/secret", 403),
        ("GET", "/gradio_api/file=ftp://10.0.0.1/secret", 403),
        ("GET", "/gradio_api/proxy=anything", 403),
        ("GET", "/gradio_api/file=/tmp/gradio/a.png", 200),
        ("POST", "/gradio_api/vibe-edit", 404),
        ("POST", "/gradio_api/call/anything", 404),
        ("DELETE", "/", 404),
    ],
)
def test_the_server_fetches_nothing_and_takes_only_what_the_page_sends(method: str, path: str, status: int) -> None:
    assert asked(method, path, b"{}")[0] == status


def test_it_answers_under_its_own_names_only() -> None:
    assert asked("GET", "/", host="attacker.example")[0] == 403
    assert asked("GET", "/", host="localhost:1")[0] == 200
    assert asked("GET", "/", host="[::1]:7860")[0] == 200


@pytest.mark.parametrize(
    "name", ["../a.png", "..\\\\a.png", "/etc/a.png", "a/../../b.png", "..", "a%2fb.png", "%2e%5Ca.png", "a\0.png"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    status, body, _ = asked("POST", "/gradio_api/upload", form(name), kind=FORM)
    assert status == 400
    assert b"leads to another folder" in body


def test_uploads_pass_whole_up_to_the_limit() -> None:
    content = bytes(range(256)) * 3
    status, body, _ = asked("POST", "/gradio_api/upload", form("my room..1.png", content), kind=FORM)
    assert status == 200
    assert body == form("my room..1.png", content)
    assert asked("POST", "/gradio_api/upload", form("a.png", bytes(LIMIT + 2**16)), kind=FORM)[0] == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"data": [{"path": "/tmp/a.png", "url": "http://127.0.0.1/a"}]}', 200),
        (b'{"data": [{"path": "http://10.0.0.1/a.png"}]}', 400),
        (b'{"data": [[{"x": {"path": " file:///etc/passwd"}}]]}', 400),
        (b"[" * 5000, 400),
        (b"no json", 400),
        (b'{"data": "' + b"x" * 2**20 + b'"}', 413),
    ],
)
def test_files_of_calls_are_not_fetched(body: bytes, status: int) -> None:
    assert asked("POST", "/gradio_api/queue/join", body)[0] == status
