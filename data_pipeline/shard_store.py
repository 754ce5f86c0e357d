"""Where the files of a shard set are: in a folder, or behind a URL with a cache folder on this machine.

<cache>/<host and folder>-<hash of address and manifest>/{manifest.json, <shard>.index.json, <shard>.tar}

A cache is a shard set with files missing. Its name holds the manifest's hash, so a set that was packed again starts a
new one. Processes that share it agree through file locks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cami2v.file_hash import file_sha256
from data_pipeline.index import IndexedSample, index_path, read_members, read_sample
from data_pipeline.manifest import FILE_NAME, ShardEntry
from data_pipeline.remote import ATTEMPTS, MissingFileError, RemoteFolder, check_address, scheme_of

_PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<bytes>\d+)\.partial")
_WAIT_SECONDS = 0.2
GRACE_SECONDS = 1.0
"""A shard that was asked for this recently is about to be read, and stays."""
_READ_ATTEMPTS = 3


class Fault(StrEnum):
    """What is wrong with a shard behind an address; the address as such answers."""

    MISSING = "missing"
    DIFFERENT = "different"
    INDEX = "index"


class FaultyShard(ValueError):
    """A shard that is not the manifest's; the message is one line that names it."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class ShardStore(ABC):
    """Shard files by manifest entry."""

    folder: Path
    """Has manifest.json, and the shards that are here."""
    name: str
    """As the user wrote it."""

    @abstractmethod
    def path(self, entry: ShardEntry) -> Path:
        """Return the place of a shard on this machine, fetched if need be; its index lies beside it.

        Raises ValueError for a shard that cannot be had or is not the manifest's.
        """

    @abstractmethod
    def forget(self, entry: ShardEntry) -> None:
        """Give up what this machine has of a remote shard."""

    def read(
        self, entry: ShardEntry, sample: IndexedSample, extensions: Sequence[str] | None = None
    ) -> dict[str, bytes]:
        """Return the members of a sample (None: all of them).

        Raises UnusableClip for a damaged sample, ValueError like `path`, and OSError.
        """
        for _ in range(_READ_ATTEMPTS - 1):
            # Another process may make room in the cache between the two calls.
            with suppress(FileNotFoundError):
                return self._members(entry, sample, extensions)
        return self._members(entry, sample, extensions)

    def _members(self, entry: ShardEntry, sample: IndexedSample, extensions: Sequence[str] | None) -> dict[str, bytes]:
        path = self.path(entry)
        return read_sample(path, sample) if extensions is None else read_members(path, sample, extensions)


class LocalShards(ShardStore):
    """A folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def path(self, entry: ShardEntry) -> Path:
        """Return the shard's path, whether it exists or not."""
        return self.folder / entry.name

    def forget(self, entry: ShardEntry) -> None:
        """Do nothing: what is here is all there is."""


class CachedShards(ShardStore):
    """A remote folder; shards come when asked for, and above `limit_bytes` those go that were not used for longest."""

    def __init__(
        self, url: str, *, cache: Path, limit_bytes: int | None, timeout_seconds: float, key: str = "data.shards"
    ) -> None:
        self.name = url.rstrip("/")
        self.remote = RemoteFolder(url, timeout_seconds=timeout_seconds)
        self.cache = cache
        self.limit_bytes = limit_bytes
        try:
            manifest = self.remote.read(FILE_NAME)
        except MissingFileError as error:
            raise ValueError(
                f"{key}={url}: there is no {FILE_NAME}; give the address of the folder `cami2v pack` wrote"
            ) from error
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", self.name.partition("://")[2]).strip("-.")[-60:]
        digest = hashlib.sha256(self.name.encode() + b"\n" + manifest).hexdigest()[:16]
        self.folder = cache / f"{readable}-{digest}"
        with _one_line(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / FILE_NAME, manifest)

    def path(self, entry: ShardEntry) -> Path:
        """Return the shard's path in the cache, once it is complete and has the manifest's checksum."""
        path = self._place(entry)
        try:
            if self.limit_bytes is not None:
                os.utime(path)
            elif not path.is_file():
                self._download(entry, path)
        except FileNotFoundError:
            self._download(entry, path)
        return path

    def fetch_ahead(self, entry: ShardEntry, stopped: Callable[[], bool]) -> None:
        """Fetch a shard that will be asked for, unless another process is at it or there is no room; one attempt.

        Raises like `path`; returns early where `stopped`.
        """
        path = self._place(entry)
        if not path.is_file():
            self._download(entry, path, ahead=True, stopped=stopped)

    def forget(self, entry: ShardEntry) -> None:
        """Remove the shard and its index from the cache."""
        with _one_line(self.cache), _locked(self.cache / ".room.lock"):
            for path in (self._place(entry), index_path(self._place(entry))):
                path.unlink(missing_ok=True)

    def _place(self, entry: ShardEntry) -> Path:
        if Path(entry.name).name != entry.name:
            raise ValueError(f"{self.name}/{FILE_NAME}: shard name {entry.name!r} is not a plain file name")
        return self.folder / entry.name

    def _download(
        self, entry: ShardEntry, path: Path, *, ahead: bool = False, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Fetch a shard and its index. `ahead`: one attempt, and nothing where that would mean to wait."""
        partial = path.with_name(f".{path.name}.{entry.bytes}.partial")
        attempts = 1 if ahead else ATTEMPTS
        try:
            with _one_line(path), _locked(_lock_of(path), wait=not ahead) as mine:
                if not mine or path.is_file():
                    return
                self._fetch_index(entry, index_path(path), attempts)
                if not self._make_room(partial, entry.bytes, wait=not ahead):
                    return
                self.remote.continue_download(entry.name, partial, entry.bytes, attempts=attempts, stopped=stopped)
                if stopped():
                    return
                if file_sha256(partial) != entry.sha256:
                    # What an earlier process left may be of another file: once more from the start.
                    partial.write_bytes(b"")
                    self.remote.continue_download(entry.name, partial, entry.bytes, attempts=attempts)
                    self._check(entry, partial)
                partial.replace(path)
                os.utime(path)
        except MissingFileError as error:
            raise FaultyShard(
                Fault.MISSING,
                f"{self.name}/{entry.name}: the manifest lists this shard, but it is missing there; upload it again",
            ) from error

    def _check(self, entry: ShardEntry, partial: Path) -> None:
        found = file_sha256(partial)
        if found != entry.sha256:
            partial.unlink()
            raise FaultyShard(
                Fault.DIFFERENT,
                f"{self.name}/{entry.name}: sha256 is {found[:12]}..., the manifest says {entry.sha256[:12]}...; "
                "the file there is damaged or of another packing: upload it again",
            )

    def _fetch_index(self, entry: ShardEntry, path: Path, attempts: int) -> None:
        if path.is_file():
            return
        try:
            data = self.remote.read(path.name, attempts=attempts)
        except MissingFileError:
            return  # read_index makes one from the tar, and says so
        try:
            made_for = json.loads(data)["bytes"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise FaultyShard(Fault.INDEX, f"{self.name}/{path.name}: not a shard index; upload it again") from error
        if made_for != entry.bytes:
            raise FaultyShard(
                Fault.INDEX,
                f"{self.name}/{path.name}: made for a shard of {made_for} bytes, the manifest says {entry.bytes}; "
                "upload it again",
            )
        _write(path, data)

    def _make_room(self, partial: Path, size: int, *, wait: bool) -> bool:
        """Create `partial`, which reserves its bytes, once they fit; delete what was not used for longest.

        False where that would mean to wait, and `wait` is false.
        """
        while self.limit_bytes is not None:
            with _locked(self.cache / ".room.lock"):
                if self._fits(partial, size, self.limit_bytes):
                    return True
                used = sorted((shard.stat().st_mtime, shard) for shard in self.cache.glob("*/*.tar"))
                shards = [shard for when, shard in used if when < time.time() - GRACE_SECONDS]
                for shard in [*self._abandoned(partial), *shards]:
                    shard.unlink(missing_ok=True)
                    if self._fits(partial, size, self.limit_bytes):
                        return True
            if not wait:
                return False
            time.sleep(_WAIT_SECONDS)  # the rest is being fetched or read, and may go after that
        partial.touch()
        return True

    def _fits(self, partial: Path, size: int, limit_bytes: int) -> bool:
        """Reserve the bytes of `partial` if they fit; call it with the room's lock, or two processes take the same."""
        if self._taken(partial) + size > limit_bytes:
            return False
        partial.touch()
        return True

    def _taken(self, ours: Path) -> int:
        partials = [path for path in self.cache.glob("*/.*.partial") if path != ours]
        reserved = sum(int(match["bytes"]) for path in partials if (match := _PARTIAL.fullmatch(path.name)))
        return reserved + sum(shard.stat().st_size for shard in self.cache.glob("*/*.tar"))

    def _abandoned(self, ours: Path) -> Iterator[Path]:
        """Yield partial downloads that no living process works on."""
        for path in self.cache.glob("*/.*.partial"):
            match = _PARTIAL.fullmatch(path.name)
            if match is None or path == ours:
                continue
            with _lock_of(path.with_name(match["name"])).open("a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield path  # its owner may just have finished it


def open_store(
    shards: str,
    *,
    cache_folder: str,
    cache_gigabytes: float | None,
    timeout_seconds: float,
    key: str = "data.shards",
) -> LocalShards | CachedShards:
    """Return the store behind the setting `key`: a folder, file://, http(s)://, s3:// or hf://."""
    scheme = scheme_of(shards)
    if scheme is None:
        return LocalShards(Path(shards).expanduser(), shards)
    check_address(shards, key)
    if scheme == "file":
        return LocalShards(Path(unquote(urlsplit(shards).path)), shards)
    return CachedShards(
        shards,
        cache=Path(cache_folder).expanduser(),
        limit_bytes=None if cache_gigabytes is None else int(cache_gigabytes * 1e9),
        timeout_seconds=timeout_seconds,
        key=key,
    )


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock; false where another process or thread has it and `wait` is false."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def _one_line(where: Path) -> Iterator[None]:
    """Turn what the cache's disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{where}: the cache cannot be written ({error.strerror}); set data.cache_folder to another place, or "
            "data.cache_gigabytes to what fits"
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all, whoever else writes the same one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.writing")
    partial.write_bytes(data)
    partial.replace(path)
