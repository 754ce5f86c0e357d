import json
from pathlib import Path

import pytest

from cami2v.training.run_folder import RunFolder, resolve_resume


def run_with(folder: Path, *steps: int, latest: int | None = None) -> RunFolder:
    run = RunFolder(folder)
    for step in steps:
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "trainer.json").write_text("{}")
    if latest is not None:
        run.set_latest(run.checkpoint(latest))
    return run


def test_a_new_run_starts_in_an_empty_folder(tmp_path: Path) -> None:
    for resume in (None, "auto"):
        assert resolve_resume(resume, RunFolder(tmp_path / "new")) == (RunFolder(tmp_path / "new"), None)


def test_a_new_run_does_not_mix_with_an_old_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"already holds checkpoints of a run \(last: step 20\).*resume=auto"):
        resolve_resume(None, run_with(tmp_path, 10, 20, latest=20))


def test_resume_continues_from_the_latest_checkpoint(tmp_path: Path) -> None:
    run = run_with(tmp_path / "old", 10, 20, latest=20)
    assert resolve_resume("auto", run) == (run, run.checkpoint(20))
    assert resolve_resume(str(run.path), RunFolder(tmp_path / "other")) == (run, run.checkpoint(20))


@pytest.mark.parametrize("exists", [True, False])
def test_resume_that_finds_nothing_is_an_error(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(ValueError, match="has no checkpoints" if exists else "does not exist"):
        resolve_resume(str(folder), RunFolder(tmp_path / "other"))


def test_resume_wants_the_run_not_one_of_its_checkpoints(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, latest=10)
    with pytest.raises(ValueError, match=f"expected its run folder {tmp_path}"):
        resolve_resume(str(run.checkpoint(10)), RunFolder(tmp_path / "other"))


def test_a_run_killed_before_the_pointer_was_written_continues_from_its_only_checkpoint(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10)
    assert run.latest() == run.checkpoint(10)


def test_a_run_killed_between_checkpoint_and_pointer_continues_from_the_pointer(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, 20, latest=10)
    assert run.latest() == run.checkpoint(10)


def test_a_pointer_to_nothing_lists_what_there_is(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, 20)
    (run.checkpoints / "latest").write_text("step-00000030\n")
    with pytest.raises(ValueError, match="names 'step-00000030', which does not exist.*step-00000010, step-00000020"):
        run.latest()


def test_unfinished_work_is_no_checkpoint_and_is_cleaned_up(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, latest=10)
    (run.checkpoints / ".saving-step-00000020").mkdir()
    assert run.steps() == [10]
    run.clean()
    assert sorted(entry.name for entry in run.checkpoints.iterdir()) == ["latest", "step-00000010"]


def test_pruning_keeps_the_newest_and_whatever_lies_after_the_pointer(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, 20, 30, 40, latest=30)
    run.prune(2)
    assert run.steps() == [20, 30, 40]


def test_metrics_after_the_resumed_step_are_moved_away(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3, 4):
        run.append_metrics({"step": step, "loss": 0.5})
    with run.metrics.open("a") as file:
        file.write('{"step": 5, "lo')
    assert run.trim_metrics(2) == 3
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [1, 2]
    discarded = (tmp_path / "metrics.discarded.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in discarded[:2]] == [3, 4]
