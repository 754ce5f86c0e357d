"""`cami2v train` on a set with a damaged clip, as users start it."""

import json
from pathlib import Path

import pytest

from tests.data_pipeline.damage import copy_set, flip_bit
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.launch.test_train import rows, train, train_as_typed


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    source = clips_folder(folder / "raw", splits=["train"] * 4 + ["test"] * 2)
    damaged = copy_set(pack_quietly(source, folder / "set").folder, folder / "damaged")
    flip_bit(damaged, "clip0")
    return damaged


@pytest.mark.slow
def test_two_processes_replace_count_and_list(tmp_path: Path, shards: Path) -> None:
    done = train_as_typed(tmp_path, shards, "name=two", "engine=ddp", "cluster.processes=2", "trainer.max_steps=4")
    assert done.returncode == 0, done.stderr[-3000:]
    listed = [json.loads(line) for line in (tmp_path / "two" / "skipped_clips.jsonl").read_text().splitlines()]
    # Eight samples are two epochs of four clips; a substitute may be clip0 once more.
    assert len({row["sample"] for row in listed}) == 2
    assert {(row["clip"], row["reason"]) for row in listed} == {("clip0", "member_damaged")}
    assert rows(tmp_path / "two", "skipped_samples")[-1] == 2
    assert done.stderr.count("gets another clip") + done.stdout.count("gets another clip") == 1


@pytest.mark.slow
def test_too_many_end_the_run_in_one_line(tmp_path: Path, shards: Path) -> None:
    done = train(tmp_path, shards, "name=one", "trainer.max_steps=4", "data.max_skip_rate=0")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "above data.max_skip_rate=0" in line
    assert "by reason: member_damaged 1; clips: train-00000" in line
    assert "Traceback" not in done.stderr
