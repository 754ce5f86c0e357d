"""Read files behind a URL, through fsspec: with a timeout, retries, and one line for what went wrong."""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

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
QUERY_VARIABLE = "CAMI2V_SHARDS_QUERY"
"""Environment variable with the query of http(s) addresses, such as a signature; never printed, logged or stored."""

_SERVICE_ERRORS = {"s3": ("botocore.exceptions", "BotoCoreError"), "hf": ("huggingface_hub.errors", "HTTPError")}
"""What the packages behind a scheme raise for a connection that fails, which is no OSError."""

Result = TypeVar("Result")


def scheme_of(address: str) -> str | None:
    """Return the scheme of a URL, or None for a path."""
    scheme, separator, _ = address.partition("://")
    return scheme.lower() if separator else None


def check_address(address: str, key: str) -> None:
    """Raise ValueError, without repeating secrets, for an address that is none of ours or carries secrets itself.

    An address is stored with every run, printed and sent to trackers.
    """
    scheme, parts = scheme_of(address), urlsplit(address)
    shown = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if scheme not in ("file", *REMOTE_SCHEMES) or "#" in address:
        known = ", ".join(f"{each}://" for each in REMOTE_SCHEMES)
        raise ValueError(
            f"{key}={shown}: expected a folder or the address of one, beginning with file://, {known}, without #"
        )
    if "?" in address:
        raise ValueError(
            f"{key}={shown}?...: an address is stored with the run, what follows ? is often secret; leave it out and "
            f"export {QUERY_VARIABLE}='<what follows ?>', which goes with every http(s) request"
        )
    if "@" in parts.netloc and scheme in ("http", "https"):
        raise ValueError(
            f"{key}={shown}: an address is stored with the run, so it must not hold a password; put user and "
            "password into ~/.netrc"
        )


class MissingFileError(Exception):
    """The server has no such file."""


class RemoteFolder:
    """A folder of files behind a URL. Objects are cheap; each process opens its own connections."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self._query = os.environ.get(QUERY_VARIABLE, "").lstrip("?") if scheme_of(url) in ("http", "https") else ""
        self._open()

    def read(self, name: str, *, attempts: int = ATTEMPTS) -> bytes:
        """Return a whole file. Raises MissingFileError where there is none, ValueError where it cannot be fetched."""
        return self._retry(name, lambda: self._fetch(name, None, None), attempts)

    def continue_download(
        self,
        name: str,
        target: Path,
        size: int,
        *,
        attempts: int = ATTEMPTS,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Append to `target` what is missing of a file of `size` bytes; less where `stopped` between two requests.

        Raises MissingFileError where there is no such file, ValueError where it cannot be fetched. `target` keeps
        what came.
        """
        while not stopped() and (have := target.stat().st_size if target.exists() else 0) < size:
            end = min(have + CHUNK_BYTES, size)
            data = self._retry(name, partial(self._part, name, have, end, size), attempts)
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
        address = f"{self.url}/{quote(name)}?{self._query}" if self._query else f"{self.url}/{name}"
        data: bytes = self._open().cat_file(address, start=start, end=end)
        return data

    def _open(self) -> AbstractFileSystem:
        scheme = scheme_of(self.url)
        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=self.timeout_seconds, sock_read=self.timeout_seconds
            )
            # A signature must arrive as it was given: not %2F as /.
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}, "encoded": bool(self._query)}
        elif scheme == "s3":
            seconds = self.timeout_seconds
            # Retries are ours: those of botocore would multiply the time until a silent server is given up.
            once = {"total_max_attempts": 1}
            options = {"config_kwargs": {"connect_timeout": seconds, "read_timeout": seconds, "retries": once}}
        try:
            # fsspec keeps one object per process and set of options; one from before a fork would not work.
            return fsspec.filesystem(scheme, **options)
        except ImportError as error:
            extra = f"pip install 'cami2v[{scheme}]'" if scheme == "s3" else str(error)
            raise ValueError(
                f"{self.url}: {scheme}:// addresses need a package that is missing here; {extra}"
            ) from error

    def _retry(self, name: str, fetch: Callable[[], Result], attempts: int) -> Result:
        pause, failures = FIRST_PAUSE_SECONDS, _failures(scheme_of(self.url))
        for attempt in range(1, attempts + 1):
            try:
                return fetch()
            except FileNotFoundError as error:
                raise MissingFileError(f"{self.url}/{name}") from self._shown(error)
            except failures as error:
                reason = self._without_query(f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": "))
                if attempt == attempts or _final(error):
                    raise ValueError(
                        f"{self.url}/{name}: cannot be fetched ({reason}; {attempt} attempts, timeout "
                        f"{self.timeout_seconds:g} s); check the address and the network, then resume"
                    ) from self._shown(error)
                logger.warning("%s/%s: %s; trying again in %g s", self.url, name, reason, pause)
                time.sleep(pause)
                pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _without_query(self, text: str) -> str:
        return text.replace(self._query, "...") if self._query else text

    def _shown(self, error: Exception) -> Exception | None:
        """Return what a traceback may show as the cause: nothing that has the query in it."""
        return None if self._query else error


def _failures(scheme: str | None) -> tuple[type[Exception], ...]:
    """Return what a fetch may raise that is not a fault of this program."""
    if scheme not in _SERVICE_ERRORS:
        return OSError, aiohttp.ClientError
    module, name = _SERVICE_ERRORS[scheme]
    service_error: type[Exception] = getattr(importlib.import_module(module), name)
    return OSError, aiohttp.ClientError, service_error


def _final(error: BaseException) -> bool:
    """Tell whether asking again is pointless: the server understood and refused, or there is nothing to log in with."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    refused = isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError"
    return refused or (isinstance(status, int) and 400 <= status < 500 and status not in (408, 416, 425, 429))
