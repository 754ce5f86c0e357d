"""Files are read again only where they changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cami2v import file_hash
from cami2v.file_hash import KnownHashes


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(file_hash, "file_sha256", reading)
    known, first, second = KnownHashes(), tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    link = tmp_path / "link"
    link.symlink_to(first)
    assert known(link) == known(link) == hashlib.sha256(b"one").hexdigest()
    assert known(second) == hashlib.sha256(b"two").hexdigest()
    assert read == [link, second]
    # Of the same length, and made in the same moment: another file all the same.
    link.unlink()
    link.symlink_to(second)
    os.utime(second, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
    assert known(link) == hashlib.sha256(b"two").hexdigest()
    assert read == [link, second, link]
