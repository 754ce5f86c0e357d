"""Shard sets behind a URL: the same batches as from the folder, whatever the server does, or one clear line."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HTTPError

from data_pipeline.loader import ClipLoader
from data_pipeline.manifest import ShardEntry, read_manifest
from data_pipeline.remote import RemoteFolder
from data_pipeline.shard_store import CachedShards
from tests.data_pipeline.damage import copy_set
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.data_pipeline.shard_servers import ShardServer, serving
from tests.data_pipeline.test_loader import assert_equal, loader, take

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    return pack_quietly(clips_folder(folder / "raw", clips=8, splits=["train"] * 8), folder / "set").folder


def remote(server: ShardServer, cache: Path, **changes: Any) -> ClipLoader:
    settings = {"shards": server.url, "cache_folder": str(cache), "timeout_seconds": 5.0}
    return loader(cache, **(settings | changes))


def store(server: ShardServer, cache: Path, limit_bytes: int | None = None) -> CachedShards:
    return CachedShards(server.url, cache=cache, limit_bytes=limit_bytes, timeout_seconds=5.0)


def entries(folder: Path) -> tuple[ShardEntry, ...]:
    return read_manifest(folder).split("train", "").shards


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ranges", [True, False])
def test_the_same_batches_as_from_the_folder(shards: Path, tmp_path: Path, num_workers: int, ranges: bool) -> None:
    with serving(shards, ranges=ranges) as server:
        source = remote(server, tmp_path, num_workers=num_workers)
        assert server.counts() == {"manifest.json": 1}
        for left, right in zip(take(source, 8), take(loader(shards), 8), strict=True):
            assert_equal(left, right)
        names = [entry.name for entry in entries(shards)]
        assert all(server.counts()[name] == 1 for name in names)
        assert all(server.counts()[name.replace(".tar", ".index.json")] == 1 for name in names)
    # The cache alone serves a second run but for the manifest, and is a shard set of its own.
    with serving(shards) as server:
        for left, right in zip(take(loader(source.folder), 8), take(loader(shards), 8), strict=True):
            assert_equal(left, right)


def test_a_second_run_asks_for_the_manifest_only(server: ShardServer, tmp_path: Path) -> None:
    take(remote(server, tmp_path), 8)
    server.requests.clear()
    take(remote(server, tmp_path), 8)
    assert server.counts() == {"manifest.json": 1}


def test_a_file_address_is_a_folder(shards: Path) -> None:
    source = loader(shards, shards=f"file://{shards}")
    assert source.folder == shards
    for left, right in zip(take(source, 2), take(loader(shards), 2), strict=True):
        assert_equal(left, right)


def test_chunks_and_faults_in_between(
    shards: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.remote.CHUNK_BYTES", 3000)
    entry = entries(shards)[0]
    server.faults[entry.name] = ["truncate", "broken", "truncate"]
    server.faults["manifest.json"] = ["truncate"]
    path = store(server, tmp_path).path(entry)
    assert path.read_bytes() == (shards / entry.name).read_bytes()
    assert server.counts()[entry.name] == -(-entry.bytes // 3000) + 3


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["truncate"] * 4, "cannot be fetched .*; 4 attempts"),
        (["broken"] * 4, r"cannot be fetched .*503.*; 4 attempts"),
        (["stall"] * 4, r"cannot be fetched \(.*Timeout.*; 4 attempts, timeout 1 s\)"),
        (["missing"], "the manifest lists this shard, but it is missing there; upload it again"),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_server_that_fails_is_named_in_one_line(
    server: ShardServer, tmp_path: Path, faults: list[Any], message: str, num_workers: int
) -> None:
    for number in range(4):
        server.faults[f"train-00000{number}.tar"] = list(faults) * 4
    timeout = 1.0 if faults[0] == "stall" else 5.0
    source = remote(server, tmp_path, num_workers=num_workers, timeout_seconds=timeout)
    with pytest.raises(ValueError, match=rf"{server.url}/train-00000\d.tar: {message}") as caught:
        take(source, 1)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*/*.tar"))


def test_no_set_there(server: ShardServer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.shards=.*/nothing: there is no manifest.json; give the address"):
        remote(server, tmp_path, shards=f"{server.url}/nothing")
    with pytest.raises(ValueError, match=r"cannot be fetched \(.*4 attempts"):
        remote(server, tmp_path, shards="http://127.0.0.1:9/set")
    with pytest.raises(ValueError, match="expected a folder or the address of one, beginning with file://, http://"):
        remote(server, tmp_path, shards="ftp://somewhere/set")


def test_another_content_is_refused(shards: Path, tmp_path: Path) -> None:
    folder = copy_set(shards, tmp_path / "set")
    entry = entries(folder)[1]
    data = bytearray((folder / entry.name).read_bytes())
    data[600] ^= 1
    (folder / entry.name).write_bytes(data)
    with serving(folder) as server:
        message = rf"{entry.name}: sha256 is [0-9a-f]{{12}}..., the manifest says {entry.sha256[:12]}..."
        with pytest.raises(ValueError, match=message):
            store(server, tmp_path / "cache").path(entry)
        assert server.counts()[entry.name] == 2
        assert not list((tmp_path / "cache").glob("*/*.tar")) + list((tmp_path / "cache").glob("*/.*.partial"))


@pytest.mark.parametrize("content", ["<html>", '{"bytes": 3, "samples": []}'])
def test_another_index_is_refused(shards: Path, tmp_path: Path, content: str) -> None:
    folder = copy_set(shards, tmp_path / "set")
    entry = entries(folder)[0]
    (folder / entry.name).with_suffix(".index.json").write_text(content)
    with serving(folder) as server, pytest.raises(ValueError, match=r"train-000000.index.json: .*; upload it again"):
        store(server, tmp_path / "cache").path(entry)


def test_a_set_without_indexes_still_reads(shards: Path, tmp_path: Path) -> None:
    folder = copy_set(shards, tmp_path / "set")
    for path in folder.glob("*.index.json"):
        path.unlink()
    with serving(folder) as server:
        assert_equal(take(remote(server, tmp_path / "cache"), 1)[0], take(loader(shards), 1)[0])


def test_a_set_packed_again_starts_another_cache(shards: Path, tmp_path: Path) -> None:
    folder = copy_set(shards, tmp_path / "set")
    with serving(folder) as server:
        before = remote(server, tmp_path / "cache").folder
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["input_sha256"] = "0" * 64
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert remote(server, tmp_path / "cache").folder != before


def test_a_shard_name_cannot_leave_the_cache(shards: Path, server: ShardServer, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="'../x.tar' is not a plain file name"):
        store(server, tmp_path).path(replace(entries(shards)[0], name="../x.tar"))


def _get(url: str, cache: Path, entry: ShardEntry) -> None:
    CachedShards(url, cache=cache, limit_bytes=None, timeout_seconds=20.0).path(entry)


def test_processes_share_one_download(shards: Path, server: ShardServer, tmp_path: Path) -> None:
    server.delay_seconds = 0.1
    entry = entries(shards)[0]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_get, args=(server.url, tmp_path, entry)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert server.counts()[entry.name] == 1


def test_a_killed_download_goes_on_where_it_was(
    shards: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.remote.CHUNK_BYTES", 2000)
    server.delay_seconds = 0.05
    entry = entries(shards)[0]
    process = multiprocessing.get_context("fork").Process(target=_get, args=(server.url, tmp_path, entry))
    process.start()
    while server.counts()[entry.name] < 4:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (partial,) = tmp_path.glob("*/.*.partial")
    arrived = partial.stat().st_size
    assert 0 < arrived < entry.bytes
    server.delay_seconds = 0.0
    server.requests.clear()
    assert store(server, tmp_path).path(entry).read_bytes() == (shards / entry.name).read_bytes()
    assert (entry.name, f"bytes={arrived}-{min(arrived + 2000, entry.bytes) - 1}") in server.requests
    assert not any((wanted or "").startswith("bytes=0-") for name, wanted in server.requests if name == entry.name)


def test_a_partial_of_another_file_is_thrown_away(shards: Path, server: ShardServer, tmp_path: Path) -> None:
    entry = entries(shards)[0]
    cached = store(server, tmp_path)
    (cached.folder / f".{entry.name}.{entry.bytes}.partial").write_bytes(b"something else" * 30)
    assert cached.path(entry).read_bytes() == (shards / entry.name).read_bytes()


def test_a_bounded_cache_forgets_what_was_not_used_for_longest(
    shards: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.shard_store.GRACE_SECONDS", 0.0)
    every = entries(shards)
    largest = max(entry.bytes for entry in every)
    cached = store(server, tmp_path, limit_bytes=2 * largest)
    (cached.folder / ".gone.tar.999.partial").write_bytes(b"left by a process that was killed")
    for entry in every:
        cached.path(entry)
        time.sleep(0.01)
        cached.path(every[0])
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*.tar")) <= 2 * largest
    assert {path.name for path in tmp_path.glob("*/*.tar")} == {every[0].name, every[-1].name}
    assert server.counts()[every[0].name] == 1
    assert not list(tmp_path.glob("*/.*.partial"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bounded_cache_changes_no_batch(shards: Path, server: ShardServer, tmp_path: Path, num_workers: int) -> None:
    largest = max(entry.bytes for entry in entries(shards))
    bounds = {"cache_gigabytes": 1.01 * largest / 1e9, "shuffle_window_shards": 1}
    source = remote(server, tmp_path, num_workers=num_workers, **bounds)
    for left, right in zip(take(source, 8), take(loader(shards, shuffle_window_shards=1), 8), strict=True):
        assert_equal(left, right)
    with pytest.raises(ValueError, match=r"data.cache_gigabytes=.*: the 2 shards of a shuffle window take .* GB"):
        remote(server, tmp_path, **(bounds | {"shuffle_window_shards": 2}))


def test_a_query_comes_from_the_environment_and_is_never_shown(
    shards: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.query = "sv=1&sig=se%2Fcr%2Bet%3D"
    monkeypatch.setenv("CAMI2V_SHARDS_QUERY", server.query)
    entry = entries(shards)[0]
    server.faults[entry.name] = ["broken"]
    source = store(server, tmp_path)
    assert source.path(entry).read_bytes() == (shards / entry.name).read_bytes()
    assert "503" in caplog.text
    assert not list(tmp_path.glob("*cr*"))
    monkeypatch.setenv("CAMI2V_SHARDS_QUERY", "sv=1&sig=ex%2Fpired")
    with pytest.raises(ValueError, match=r"cannot be fetched \(ClientResponseError: 403.*; 1 attempts") as caught:
        remote(server, tmp_path)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "sig=" not in shown
    monkeypatch.delenv("CAMI2V_SHARDS_QUERY")
    server.query = ""
    assert store(server, tmp_path).folder == source.folder


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("https://host/set?sig=secret", r"data.shards=https://host/set\?\.\.\.: .* export CAMI2V_SHARDS_QUERY="),
        ("https://me:secret@host/set", r"data.shards=https://host/set: .* put user and password into ~/.netrc"),
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(tmp_path: Path, address: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as caught:
        loader(tmp_path, shards=address)
    assert "secret" not in str(caught.value).replace("is often secret", "")


class _Refused(HTTPError):
    response = SimpleNamespace(status_code=404)


@pytest.mark.parametrize(("error", "attempts"), [(HTTPError("no route"), 4), (_Refused("gone"), 1)])
def test_what_the_packages_behind_a_scheme_raise_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    def fail(*arguments: object) -> bytes:
        raise error

    monkeypatch.setattr(RemoteFolder, "_fetch", fail)
    with pytest.raises(ValueError, match=f"hf://datasets/a/b/x: cannot be fetched .*{attempts} attempts") as caught:
        RemoteFolder("hf://datasets/a/b", timeout_seconds=1.0).read("x")
    assert "\n" not in str(caught.value)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        ValueError, match=r"s3:// addresses need a package that is missing here; pip install 'cami2v\[s3]'"
    ):
        loader(tmp_path, shards="s3://bucket/set", cache_folder=str(tmp_path))


def test_a_cache_that_cannot_be_written_is_named(server: ShardServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="the cache cannot be written .*; set data.cache_folder to another place"):
        remote(server, tmp_path / "file")
