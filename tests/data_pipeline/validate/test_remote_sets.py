"""Shard sets behind an address are validated and summarised like folders, with few shards on the disk at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.shard_store import CachedShards
from data_pipeline.statistics.run import summarise
from data_pipeline.validate import run
from data_pipeline.validate.clip import ClipOptions, ClipResult
from data_pipeline.validate.report import Report
from data_pipeline.validate.shards import ShardClipJob
from launch.data import main
from tests.data_pipeline.damage import clips_of, copy_set, flip_bit
from tests.data_pipeline.raw_folders import READING, clips_folder, pack_quietly
from tests.data_pipeline.shard_servers import ShardServer, serving

OPTIONS = ClipOptions(min_frames=4, decode=True, epipolar_every=0, processes=1)

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validated")
    raw = clips_folder(folder / "raw", clips=6, frames=6, splits=["train"] * 6)
    return pack_quietly(raw, folder / "set", min_shards=6).folder


def store(server: ShardServer, cache: Path) -> CachedShards:
    return CachedShards(server.url, cache=cache, limit_bytes=None, timeout_seconds=5.0)


def validated(source: Path | CachedShards, **changes: Any) -> Report:
    return run.validate(source, OPTIONS, READING, **({"keep_shards": False, "progress": False} | changes))


def tars(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*/*.tar"))


def test_few_shards_are_there_at_a_time(
    shards: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[int] = []
    judge = run.judge_shard_clip

    def counted(job: ShardClipJob, *, options: ClipOptions) -> ClipResult:
        there.append(len(tars(tmp_path)))
        return judge(job, options=options)

    monkeypatch.setattr(run, "judge_shard_clip", counted)
    remote, local = validated(store(server, tmp_path)), validated(shards)
    assert (remote.clips, remote.findings) == (6, local.findings)
    assert there[:6] == [1, 2, 2, 2, 2, 2]
    assert not tars(tmp_path)
    assert not list(tmp_path.glob("*/*.index.json"))
    assert all(server.counts()[f"train-00000{number}.tar"] == 1 for number in range(6))


def test_what_was_there_stays_and_can_be_kept(shards: Path, server: ShardServer, tmp_path: Path) -> None:
    cached = store(server, tmp_path)
    listed = run.list_set(cached)
    assert isinstance(listed, run.ListedSet)
    cached.path(listed.shards[3].entry)
    validated(cached)
    assert tars(tmp_path) == ["train-000003.tar"]
    cached.folder.joinpath("train-000003.tar").write_bytes(b"damaged in the cache")
    assert str(validated(cached).findings[0].check) == "shard_hash_mismatch"
    cached.forget(listed.shards[3].entry)
    server.requests.clear()
    validated(cached, keep_shards=True)
    assert len(tars(tmp_path)) == 6
    summary = summarise(cached, READING, 1, keep_shards=False, progress=False)
    assert summary.lines() == summarise(shards, READING, 1, keep_shards=False, progress=False).lines()
    assert sum(server.counts().values()) == 12, "each shard and each index once"


def test_faults_behind_an_address_are_findings_with_their_place(shards: Path, tmp_path: Path) -> None:
    folder = copy_set(shards, tmp_path / "set")
    clip_of = {shard.name: clip for clip, (shard, _) in clips_of(folder).items()}
    flip_bit(folder, clip_of["train-000002.tar"])
    (folder / "train-000000.tar").unlink()
    (folder / "train-000001.index.json").write_text("<html>")
    with serving(folder) as server:
        report = validated(store(server, tmp_path / "cache"))
    found = {(str(each.check), each.shard) for each in report.findings}
    assert found == {
        ("shard_missing", "train-000000.tar"),
        ("index_mismatch", "train-000001.tar"),
        ("shard_hash_mismatch", "train-000002.tar"),
    }
    assert report.clips == 3, "the others are judged all the same"
    assert report.exit_code(strict=False) == 1


def test_a_server_that_does_not_answer_ends_it_in_one_line(server: ShardServer, tmp_path: Path) -> None:
    source = store(server, tmp_path)
    for number in range(6):
        server.faults[f"train-00000{number}.tar"] = ["broken"] * 4
    with pytest.raises(ValueError, match=r"train-000000.tar: cannot be fetched .*503.*4 attempts"):
        validated(source)


def test_the_command_with_several_processes_and_a_signature(
    server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.query = "sig=a%2Fb"
    monkeypatch.setenv("CAMI2V_SHARDS_QUERY", server.query)
    options = [f"source={server.url}", f"remote.cache_folder={tmp_path}", "validate.min_frames=4"]
    options += ["validate.epipolar_every=0", "validate.processes=2"]
    monkeypatch.setattr(sys, "argv", ["cami2v data", "validate", *options])
    main()
    printed = capsys.readouterr().out
    assert printed.startswith(f"{server.url}: shard set, 6 clips")
    assert "0 errors" in printed
    assert not tars(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cami2v data", "validate", f"source='{server.url}?sig=a%2Fb'"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert "export CAMI2V_SHARDS_QUERY=" in error
    assert "%2F" not in error
