"""Locks between processes, on one machine or several, that the system takes back when a process is killed."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

logger = logging.getLogger(__name__)

_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


class FileLock:
    """A held lock; `with` or `release` gives it back."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The open file: a child that inherits it holds the lock as well, until it ends."""
        return self._descriptor

    @property
    def current(self) -> bool:
        """Whether the locked file is still the one at its path: who waits may be handed a file removed meanwhile."""
        mine = os.fstat(self._descriptor)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def wait_for_lock(path: Path, *, shared: bool = False) -> FileLock:
    """Lock a file, which is made if need be, as soon as nobody else holds it (`shared`: nobody but other sharers).

    On a file system without locks this warns and goes on: callers must stay correct, and may only do work twice.
    """
    lock = _lock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    assert lock is not None, "a waiting lock is granted"
    return lock


def try_lock(path: Path) -> FileLock | None:
    """Lock a file if nobody holds it, otherwise return None."""
    return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def passing_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock whose file goes away afterwards; false where somebody else holds it and `wait` is false.

    Its folder is made if need be, and may be removed whenever it is empty.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = wait_for_lock(path) if wait else try_lock(path)
        except FileNotFoundError:
            continue  # the folder was removed in between
        if lock is None:
            yield False
            return
        if lock.current:
            break
        lock.release()
    with lock:
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path, operation: int) -> FileLock | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            os.close(descriptor)
            raise
        logger.warning("%s: this file system has no locks (%s); two runs may do the same work twice", path, error)
    except BaseException:
        os.close(descriptor)
        raise
    return FileLock(path, descriptor)
