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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cami2v.file_hash import file_sha256
from data_pipeline.index import index_path
from data_pipeline.manifest import FILE_NAME, ShardEntry
from data_pipeline.remote import REMOTE_SCHEMES, MissingFileError, RemoteFolder, scheme_of

_PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<bytes>\d+)\.partial")
_WAIT_SECONDS = 0.2
GRACE_SECONDS = 1.0
"""A shard that was asked for this recently is about to be read, and stays."""


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


class LocalShards(ShardStore):
    """A folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def path(self, entry: ShardEntry) -> Path:
        """Return the shard's path, whether it exists or not."""
        return self.folder / entry.name


class CachedShards(ShardStore):
    """A remote folder; shards come when asked for, and above `limit_bytes` those go that were not used for longest."""

    def __init__(self, url: str, *, cache: Path, limit_bytes: int | None, timeout_seconds: float) -> None:
        self.name = url.rstrip("/")
        self.remote = RemoteFolder(url, timeout_seconds=timeout_seconds)
        self.cache = cache
        self.limit_bytes = limit_bytes
        try:
            manifest = self.remote.read(FILE_NAME)
        except MissingFileError as error:
            raise ValueError(
                f"data.shards={url}: there is no {FILE_NAME}; give the address of the folder `cami2v pack` wrote"
            ) from error
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", self.name.partition("://")[2]).strip("-.")[-60:]
        digest = hashlib.sha256(self.name.encode() + b"\n" + manifest).hexdigest()[:16]
        self.folder = cache / f"{readable}-{digest}"
        with _one_line(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / FILE_NAME, manifest)

    def path(self, entry: ShardEntry) -> Path:
        """Return the shard's path in the cache, once it is complete and has the manifest's checksum."""
        path = self.folder / entry.name
        if Path(entry.name).name != entry.name:
            raise ValueError(f"{self.name}/{FILE_NAME}: shard name {entry.name!r} is not a plain file name")
        try:
            if self.limit_bytes is not None:
                os.utime(path)
            elif not path.is_file():
                self._download(entry, path)
        except FileNotFoundError:
            self._download(entry, path)
        return path

    def _download(self, entry: ShardEntry, path: Path) -> None:
        partial = path.with_name(f".{path.name}.{entry.bytes}.partial")
        try:
            with _one_line(path), _locked(_lock_of(path)):
                if path.is_file():
                    return
                self._fetch_index(entry, index_path(path))
                self._make_room(partial, entry.bytes)
                self.remote.continue_download(entry.name, partial, entry.bytes)
                if file_sha256(partial) != entry.sha256:
                    # What an earlier process left may be of another file: once more from the start.
                    partial.write_bytes(b"")
                    self.remote.continue_download(entry.name, partial, entry.bytes)
                    self._check(entry, partial)
                partial.replace(path)
                os.utime(path)
        except MissingFileError as error:
            raise ValueError(
                f"{self.name}/{entry.name}: the manifest lists this shard, but it is missing there; upload it again"
            ) from error

    def _check(self, entry: ShardEntry, partial: Path) -> None:
        found = file_sha256(partial)
        if found != entry.sha256:
            partial.unlink()
            raise ValueError(
                f"{self.name}/{entry.name}: sha256 is {found[:12]}..., the manifest says {entry.sha256[:12]}...; "
                "the file there is damaged or of another packing: upload it again"
            )

    def _fetch_index(self, entry: ShardEntry, path: Path) -> None:
        if path.is_file():
            return
        try:
            data = self.remote.read(path.name)
        except MissingFileError:
            return  # read_index makes one from the tar, and says so
        try:
            made_for = json.loads(data)["bytes"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{self.name}/{path.name}: not a shard index; upload it again") from error
        if made_for != entry.bytes:
            raise ValueError(
                f"{self.name}/{path.name}: made for a shard of {made_for} bytes, the manifest says {entry.bytes}; "
                "upload it again"
            )
        _write(path, data)

    def _make_room(self, partial: Path, size: int) -> None:
        """Create `partial`, which reserves its bytes, as soon as they fit; delete what was not used for longest."""
        while self.limit_bytes is not None:
            with _locked(self.cache / ".room.lock"):
                if self._taken(partial) + size <= self.limit_bytes:
                    break
                used = sorted((shard.stat().st_mtime, shard) for shard in self.cache.glob("*/*.tar"))
                shards = [shard for when, shard in used if when < time.time() - GRACE_SECONDS]
                for shard in [*self._abandoned(partial), *shards]:
                    shard.unlink(missing_ok=True)
                    if self._taken(partial) + size <= self.limit_bytes:
                        partial.touch()
                        return
            time.sleep(_WAIT_SECONDS)  # the rest is being fetched or read, and may go after that
        partial.touch()

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
    shards: str, *, cache_folder: str, cache_gigabytes: float | None, timeout_seconds: float
) -> LocalShards | CachedShards:
    """Return the store behind `data.shards`: a folder, file://, http(s)://, s3:// or hf://."""
    scheme = scheme_of(shards)
    if scheme is None:
        return LocalShards(Path(shards).expanduser(), shards)
    if scheme == "file":
        return LocalShards(Path(unquote(urlsplit(shards).path)), shards)
    if scheme not in REMOTE_SCHEMES or "?" in shards or "#" in shards:
        raise ValueError(
            f"data.shards={shards}: expected a folder or the address of one, beginning with file://, "
            f"{', '.join(f'{each}://' for each in REMOTE_SCHEMES)}, without ? or #"
        )
    return CachedShards(
        shards,
        cache=Path(cache_folder).expanduser(),
        limit_bytes=None if cache_gigabytes is None else int(cache_gigabytes * 1e9),
        timeout_seconds=timeout_seconds,
    )


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
