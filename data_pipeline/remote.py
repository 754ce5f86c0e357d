"""Read files behind a URL, through fsspec: with a timeout, retries, and one line for what went wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp
import fsspec
from fsspec import AbstractFileSystem

logger = logging.getLogger(__name__)

REMOTE_SCHEMES = ("http", "https", "s3", "hf")
CHUNK_BYTES = 16 * 2**20
"""What one request asks for, and what is lost when a download is interrupted."""
ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 1.0
"""Before the second attempt; doubles every time."""

Result = TypeVar("Result")


def scheme_of(address: str) -> str | None:
    """Return the scheme of a URL, or None for a path."""
    scheme, separator, _ = address.partition("://")
    return scheme.lower() if separator else None


class MissingFileError(Exception):
    """The server has no such file."""


class RemoteFolder:
    """A folder of files behind a URL. Objects are cheap; each process opens its own connections."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self._open()

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises MissingFileError where there is none, ValueError where it cannot be fetched."""
        return self._retry(name, lambda: self._fetch(name, None, None))

    def continue_download(self, name: str, target: Path, size: int) -> None:
        """Append to `target` what is missing of a file of `size` bytes.

        Raises MissingFileError where there is no such file, ValueError where it cannot be fetched. `target` keeps
        what came.
        """
        while (have := target.stat().st_size if target.exists() else 0) < size:
            end = min(have + CHUNK_BYTES, size)
            data = self._retry(name, partial(self._part, name, have, end, size))
            with target.open("r+b" if target.exists() else "wb") as file:
                # A server that knows no ranges sends everything.
                file.seek(0 if len(data) > end - have else have)
                file.write(data)

    def _part(self, name: str, start: int, end: int, size: int) -> bytes:
        data = self._fetch(name, start, end)
        if len(data) not in (end - start, size):
            raise OSError(f"got {len(data)} bytes where {end - start} were asked for, from byte {start} of {size}")
        return data

    def _fetch(self, name: str, start: int | None, end: int | None) -> bytes:
        data: bytes = self._open().cat_file(f"{self.url}/{name}", start=start, end=end)
        return data

    def _open(self) -> AbstractFileSystem:
        scheme = scheme_of(self.url)
        options = {}
        if scheme in ("http", "https"):
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=self.timeout_seconds, sock_read=self.timeout_seconds
            )
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        elif scheme == "s3":
            seconds = self.timeout_seconds
            options = {"config_kwargs": {"connect_timeout": seconds, "read_timeout": seconds}}
        try:
            # fsspec keeps one object per process and set of options; one from before a fork would not work.
            return fsspec.filesystem(scheme, **options)
        except ImportError as error:
            extra = f"pip install 'cami2v[{scheme}]'" if scheme == "s3" else str(error)
            raise ValueError(
                f"data.shards={self.url}: {scheme}:// addresses need a package that is missing here; {extra}"
            ) from error

    def _retry(self, name: str, fetch: Callable[[], Result]) -> Result:
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return fetch()
            except FileNotFoundError as error:
                raise MissingFileError(f"{self.url}/{name}") from error
            except (OSError, aiohttp.ClientError) as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
                if attempt == ATTEMPTS or _final(error):
                    raise ValueError(
                        f"{self.url}/{name}: cannot be fetched ({reason}; {attempt} attempts, timeout "
                        f"{self.timeout_seconds:g} s); check the address and the network, then resume"
                    ) from error
                logger.warning("%s/%s: %s; trying again in %g s", self.url, name, reason, pause)
                time.sleep(pause)
                pause *= 2
        raise AssertionError("the last attempt returns or raises")


def _final(error: BaseException) -> bool:
    """Tell whether asking again is pointless: the server understood and refused."""
    status = getattr(error, "status", None)
    return isinstance(error, PermissionError) or (
        isinstance(status, int) and 400 <= status < 500 and status not in (408, 416, 425, 429)
    )
