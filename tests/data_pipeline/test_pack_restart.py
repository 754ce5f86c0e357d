"""A run that was ended at any instant is continued, and gives what an undisturbed run gives."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cami2v.video import write_mp4
from data_pipeline import inspection
from data_pipeline.file_locks import try_lock, wait_for_lock
from data_pipeline.partial_set import PartialSet, partial_set
from tests.data_pipeline.kill_pack import contents, kill_and_resume
from tests.data_pipeline.raw_folders import clips_folder, grey_frames, pack_quietly

SMALL_SHARDS: dict[str, Any] = {"samples_per_shard": 2, "min_shards": 1}


class Stopped(BaseException):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips_folder(tmp_path_factory.mktemp("restart") / "raw", clips=8)


@pytest.fixture(scope="module")
def expected(raw: Path) -> dict[str, str]:
    pack_quietly(raw, raw.parent / "undisturbed", **SMALL_SHARDS)
    return contents(raw.parent / "undisturbed")


@pytest.fixture
def stopped_after_two(raw: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave the working folder of a run that ended after two of its shards."""
    with monkeypatch.context() as patched:
        write, calls = PartialSet.write, iter(range(100))

        def stop(*arguments: Any) -> None:
            if next(calls) == 2:
                raise Stopped
            write(*arguments)

        patched.setattr(PartialSet, "write", stop)
        with pytest.raises(Stopped):
            pack_quietly(raw, tmp_path / "set", **SMALL_SHARDS)
    assert not (tmp_path / "set").exists()
    return tmp_path / ".set.partial"


def test_finished_shards_and_inspected_clips_are_kept(
    raw: Path, expected: dict[str, str], stopped_after_two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {path.name: path.stat().st_ino for path in (stopped_after_two / "set").glob("*.tar")}
    assert len(kept) == 2

    def inspect_again(*_: object, **__: object) -> None:
        raise AssertionError("a clip was inspected again")

    monkeypatch.setattr(inspection, "inspect_clip", inspect_again)
    output = stopped_after_two.parent / "set"
    pack_quietly(raw, output, **SMALL_SHARDS)
    assert {name: (output / name).stat().st_ino for name in kept} == kept
    assert contents(output) == expected
    assert not stopped_after_two.exists()


def test_a_kept_shard_is_checked_before_it_is_trusted(
    raw: Path, expected: dict[str, str], stopped_after_two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = next((stopped_after_two / "set").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    pack_quietly(raw, stopped_after_two.parent / "set", **SMALL_SHARDS)
    assert contents(stopped_after_two.parent / "set") == expected
    assert f"{shard.name}: differs from its recorded checksum" in caplog.text


def test_another_plan_is_refused_until_told_to_overwrite(
    raw: Path, stopped_after_two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = stopped_after_two.parent / "set"
    with pytest.raises(ValueError, match=r"holds 2 finished shards of an interrupted run with other clips or settings"):
        pack_quietly(raw, output, **SMALL_SHARDS, seed=1)
    pack_quietly(raw, output, **SMALL_SHARDS, seed=1, overwrite=True)
    assert "discarding 2 finished shards" in caplog.text
    pack_quietly(raw, raw.parent / f"{stopped_after_two.parent.name}-seed1", **SMALL_SHARDS, seed=1)
    assert contents(output) == contents(raw.parent / f"{stopped_after_two.parent.name}-seed1")


def test_the_folder_of_a_live_run_is_never_taken(raw: Path, stopped_after_two: Path) -> None:
    plan = next(stopped_after_two.glob("plan-*.lock"))
    with wait_for_lock(plan, shared=True), pytest.raises(ValueError, match="another run is writing other clips"):
        pack_quietly(raw, stopped_after_two.parent / "set", **SMALL_SHARDS, seed=1, overwrite=True)


def test_a_clip_that_changed_is_inspected_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = clips_folder(tmp_path / "raw", clips=3)
    with monkeypatch.context() as patched:
        patched.setattr(PartialSet, "adopt", lambda *_, **__: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            pack_quietly(raw, tmp_path / "set")
    write_mp4(raw / "video_clips" / "clip1.mp4", grey_frames(7, range(12)), 30, crf=4)
    pack_quietly(raw, tmp_path / "set")
    pack_quietly(raw, tmp_path / "fresh")
    assert contents(tmp_path / "set") == contents(tmp_path / "fresh")


def test_a_set_moved_aside_comes_back(raw: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    pack_quietly(raw, output, **SMALL_SHARDS)
    before = contents(output)
    (tmp_path / ".set.partial").mkdir()
    output.rename(tmp_path / ".set.partial" / "replaced")  # a kill between the two moves of `appear`
    with partial_set(output):
        assert contents(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_shard_that_another_run_writes_is_waited_for(
    raw: Path, expected: dict[str, str], stopped_after_two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = stopped_after_two.parent / "set"
    lock = try_lock(stopped_after_two / "train-000002.tar.lock")
    assert lock is not None
    thread = threading.Thread(target=pack_quietly, args=(raw, output), kwargs=SMALL_SHARDS)
    thread.start()
    deadline = time.monotonic() + 60
    while "waiting for another run that is writing 1 of the shards" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not output.exists()
    lock.release()
    thread.join(60)
    assert contents(output) == expected


def test_a_kill_before_any_rename_does_no_harm(tmp_path: Path) -> None:
    """Every step that shows is a rename: end a process right before and right after each of them."""
    raw = clips_folder(tmp_path / "raw", clips=3)
    pack_quietly(raw, tmp_path / "undisturbed", min_shards=2)
    expected, number = contents(tmp_path / "undisturbed"), 0
    while True:
        output = tmp_path / f"set{number}"
        child = os.fork()
        if child == 0:
            _exit_at_rename(number)
            pack_quietly(raw, output, min_shards=2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert not output.exists() or contents(output) == expected
        pack_quietly(raw, output, min_shards=2)
        assert contents(output) == expected, f"rename {number}"
        assert not (tmp_path / f".set{number}.partial").exists()
        if os.waitstatus_to_exitcode(status) == 0:
            break
        number += 1
    # Of an inspected group, the plan, tar, index and record of each of 3 shards, the manifest, the set.
    assert number == 2 * (1 + 1 + 3 * 3 + 1 + 1)


def _exit_at_rename(number: int) -> None:
    """Let the process end before rename number / 2, or after it for odd numbers."""
    calls = iter(range(1000))

    def ending(rename: Any) -> Any:
        def call(*arguments: Any) -> Any:
            step = next(calls)
            if step * 2 == number:
                os._exit(9)
            result = rename(*arguments)
            if step * 2 + 1 == number:
                os._exit(9)
            return result

        return call

    os.replace, os.rename = ending(os.replace), ending(os.rename)


@pytest.mark.slow
def test_killed_at_random_instants(tmp_path: Path) -> None:
    assert len(kill_and_resume(tmp_path, kills=8, seed=int.from_bytes(os.urandom(4), "big"))) == 8
