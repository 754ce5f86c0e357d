"""Several tasks pack one set together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.array_tasks import Share, share_of
from tests.data_pipeline.kill_pack import contents
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly

SMALL_SHARDS: dict[str, Any] = {"samples_per_shard": 2, "min_shards": 1}


def slurm(task: int, count: int, first: int, last: int, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "COUNT": count, "MIN": first, "MAX": last, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def test_the_last_task_completes_the_set(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=10)
    pack_quietly(raw, tmp_path / "alone", **SMALL_SHARDS)
    for task in (2, 0):
        result = pack_quietly(raw, tmp_path / "set", **SMALL_SHARDS, task=task, tasks=3)
        assert result.manifest is None
        assert result.shards_missing > 0
        assert not (tmp_path / "set").exists()
    again = pack_quietly(raw, tmp_path / "set", **SMALL_SHARDS, task=2, tasks=3)  # a task may be run again
    assert again.manifest is None
    assert pack_quietly(raw, tmp_path / "set", **SMALL_SHARDS, task=1, tasks=3).manifest is not None
    assert contents(tmp_path / "set") == contents(tmp_path / "alone")
    assert pack_quietly(raw, tmp_path / "set", **SMALL_SHARDS, task=0, tasks=3).report is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "raw", "set"]


@pytest.mark.parametrize("shares", [[(0, 3), (1, 3), (2, 3)], [(0, 1), (0, 1)], [(0, 2), (1, 2), (1, 2)]])
def test_tasks_at_once(tmp_path: Path, shares: list[tuple[int, int]]) -> None:
    raw = clips_folder(tmp_path / "raw", clips=10)
    pack_quietly(raw, tmp_path / "alone", **SMALL_SHARDS)
    with ThreadPoolExecutor(len(shares)) as pool:
        runs = [
            pool.submit(pack_quietly, raw, tmp_path / "set", **SMALL_SHARDS, task=task, tasks=tasks)
            for task, tasks in shares
        ]
        results = [run.result() for run in runs]
    assert any(result.manifest is not None for result in results)
    assert contents(tmp_path / "set") == contents(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "raw", "set"]


def test_shares_cover_everything_once() -> None:
    items = list(range(11))
    shares = [Share(task=task, tasks=4).of(items) for task in range(4)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for task in range(4):
        assert sorted(Share(task=task, tasks=4).starting_with_mine(items)) == items


@pytest.mark.parametrize(
    ("task", "tasks", "environment", "expected"),
    [
        (None, None, {}, (0, 1)),
        (2, 5, {}, (2, 5)),
        (2, 5, slurm(0, 8, 0, 7), (2, 5)),
        (None, 1, slurm(3, 8, 0, 7), (0, 1)),
        (None, 8, slurm(5, 2, 3, 5), (5, 8)),
        (None, None, slurm(3, 8, 0, 7), (3, 8)),
        (None, None, slurm(3, 4, 1, 4), (2, 4)),
        (None, None, slurm(6, 4, 0, 6, 2), (3, 4)),
        (None, None, slurm(7, 1, 7, 7), (0, 1)),
    ],
)
def test_which_share(
    task: int | None, tasks: int | None, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    share = share_of(task, tasks, environment)
    assert (share.task, share.tasks) == expected


@pytest.mark.parametrize(
    ("task", "tasks", "environment", "message"),
    [
        (1, None, {}, "set pack.tasks"),
        (None, 3, {}, "set pack.task=<0 to 2>"),
        (3, 3, {}, "must be from 0 to 2"),
        (0, 0, {}, "pack.tasks=0: must be at least 1"),
        (None, None, slurm(5, 2, 3, 5), "have gaps"),
    ],
)
def test_shares_that_are_not_known(
    task: int | None, tasks: int | None, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        share_of(task, tasks, environment)
