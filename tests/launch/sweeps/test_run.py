"""The loop of a sweep, with trials that last an instant."""

import json
import sys
from pathlib import Path

import pytest

from launch.compose import compose_config, settings
from launch.sweep import run as run_command
from launch.sweep import with_shorthands
from launch.sweeps.folder import SweepFolder
from launch.sweeps.objective import final_value
from launch.sweeps.run import Sweep
from launch.sweeps.settings import ObjectiveSettings, SweepSettings
from launch.sweeps.space import read_space
from launch.sweeps.study import SweepStudy
from launch.sweeps.table import Row
from launch.sweeps.trials import local_trials, trial_commands

FAKE = str(Path(__file__).parents[1] / "sweep_training.py")
QUICK = [f"sweep.command=[{sys.executable},{FAKE}]", "sweep.poll_seconds=0.05", "sweep.objective.key=loss"]


def configured(*overrides: str):
    return compose_config("sweep", [*QUICK, *overrides])


def sweep(folder: Path, *overrides: str) -> list[Row]:
    config = configured(*overrides)
    options = settings(config.sweep, SweepSettings, "sweep")
    place = SweepFolder(folder)
    with place.claimed():
        study = SweepStudy(options, read_space(options.space), config.seed, folder)
        Sweep(settings=options, study=study, folder=place, trials=local_trials(options, place, study)).run()
        return place.write_tables(study, busy=False)


def test_a_trial_that_falls_behind_is_ended_and_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.3")
    table = sweep(
        tmp_path, "+sweep.space.optimizer.weight_decay=[0.0,0.01,0.4]", "sweep.sampler=grid",
        "sweep.pruning.kind=median", "sweep.startup_trials=1", "sweep.pruning.warmup_steps=2",
    )  # fmt: skip
    assert [row.state for row in table][0::2] == ["finished", "pruned"]
    assert table[2].value is not None
    assert len((tmp_path / "trials/trial-0002/metrics.jsonl").read_text().splitlines()) < 8
    assert "saved" in (tmp_path / "logs/trial-0002.log").read_text()


def test_a_failure_is_tried_again_as_often_as_allowed_under_the_same_number(tmp_path):
    space = "+sweep.space.optimizer.weight_decay=[0.1,0.3]"
    table = sweep(tmp_path, space, "sweep.sampler=grid", "sweep.retries=2")
    assert [(row.state, row.starts) for row in table] == [("failed", 3), ("finished", 2)]


def test_a_finished_run_without_the_number_is_a_failure_that_names_the_numbers_there_are(tmp_path):
    table = sweep(
        tmp_path, "+sweep.space.optimizer.weight_decay=[0.5]", "sweep.sampler=grid", "sweep.objective.key=los"
    )
    assert table[0].reason == "metrics.jsonl has no los; did you mean 'loss'?; it has loss, step"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_values_do_not_depend_on_restarts(tmp_path, sampler):
    space = ["+sweep.space.optimizer.weight_decay={low: 1.0, high: 2.0}", f"sweep.sampler={sampler}"]
    straight = sweep(tmp_path / "straight", *space, "sweep.trials=3", "sweep.parallel=1")
    sweep(tmp_path / "twice", *space, "sweep.trials=1")
    twice = sweep(tmp_path / "twice", *space, "sweep.trials=3")
    assert [row.parameters for row in twice] == [row.parameters for row in straight]
    assert len({row.parameters["optimizer.weight_decay"] for row in straight}) == 3


def test_a_trial_begun_before_a_kill_keeps_number_and_values(tmp_path):
    config = configured("+sweep.space.optimizer.weight_decay={low: 1.0, high: 2.0}", "sweep.trials=2")
    options = settings(config.sweep, SweepSettings, "sweep")
    (tmp_path / "trials").mkdir()
    begun = SweepStudy(options, read_space(options.space), config.seed, tmp_path).ask()
    assert begun is not None
    table = sweep(tmp_path, "+sweep.space.optimizer.weight_decay={low: 1.0, high: 2.0}", "sweep.trials=2")
    assert [row.trial for row in table] == [0, 1]
    assert table[0].parameters == begun.params


def test_another_space_in_the_same_folder_is_refused(tmp_path):
    sweep(tmp_path, "+sweep.space.optimizer.weight_decay=[0.5]", "sweep.sampler=grid")
    with pytest.raises(ValueError, match="holds a sweep with another sweep.space"):
        sweep(tmp_path, "+sweep.space.optimizer.weight_decay=[0.5,0.6]", "sweep.sampler=grid")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+sweep.space.optimizer.weight_decai=[1]"], "weight_decai=1: no such key; did you mean 'weight_decay'"),
        (["+sweep.space.camera.widths=[x]"], "a trial with camera.widths=x: "),
        (["+sweep.space.camera=[cami3v]"], "camera=cami3v: no such preset"),
        (["+sweep.space.seed=[1]", 'sweep.fixed=["name=x"]'], "sweep.fixed: name=x is set by the sweep"),
        (["+sweep.space.seed=[1]", "sweep.command=[no-such]"], "there is no program 'no-such'"),
        (["+sweep.space.seed=[1]", "sweep.status=true"], "no sweep was begun here"),
        (["+sweep.space.seed=[1]", "sweep.parallel=2", "sweep.devices=[0]"], "sweep.devices names 1"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(tmp_path, overrides, message):
    config = configured(f"paths.runs={tmp_path}", "name=x", "sweep.sampler=grid", *overrides)
    with pytest.raises(ValueError, match=message):
        run_command(config)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_lists_what_will_run(tmp_path, capsys):
    space = "+sweep.space.optimizer.weight_decay={low: 1.0, high: 2.0}"
    overrides = [space, "sweep.sampler=random", "sweep.trials=2"]
    run_command(configured(f"paths.runs={tmp_path}", "name=x", "sweep.dry_run=true", *overrides))
    listed = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    for row in sweep(tmp_path, *overrides):
        assert f"trial {row.trial}: optimizer.weight_decay={row.parameters['optimizer.weight_decay']!r}\n" in listed


def test_the_number_of_an_evaluation(tmp_path):
    objective = ObjectiveSettings(
        source="evaluation", key="summary.generated.mean", reduce="last", direction="minimize"
    )
    with pytest.raises(ValueError, match="the evaluation left no results"):
        final_value(tmp_path, objective)
    results = tmp_path / "evaluation/sweep/results.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({"summary": {"generated": {"mean": 1.5}}}))
    assert final_value(tmp_path, objective) == 1.5
    results.write_text(json.dumps({"summary": {"generated": {"mean": None}}}))
    with pytest.raises(ValueError, match="is None, not a number"):
        final_value(tmp_path, objective)
    results.write_text(json.dumps({"summary": {"ground_truth": {}}}))
    with pytest.raises(ValueError, match="at 'generated' there is ground_truth"):
        final_value(tmp_path, objective)


def test_a_trial_judged_by_its_evaluation_trains_and_then_evaluates(tmp_path):
    config = configured(
        "+sweep.space.seed=[1]",
        "sweep.sampler=grid",
        "sweep.objective.source=evaluation",
        'sweep.evaluate=["split=validation"]',
    )
    options = settings(config.sweep, SweepSettings, "sweep")
    train, evaluate = trial_commands(options, {"seed": 1}, tmp_path / "trial-0000")
    assert (train.verb, evaluate.verb) == ("train", "evaluate")
    assert train.arguments == ["seed=1", f"paths.runs={tmp_path}", "name=trial-0000", "resume=auto"]
    assert evaluate.arguments == [
        "split=validation", f"checkpoint={tmp_path}/trial-0000",
        f"output={tmp_path}/trial-0000/evaluation/sweep",
    ]  # fmt: skip


def test_a_file_anywhere_is_a_preset(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "mine.yaml"
    file.write_text("trials: 3\n")
    # Hydra's parser wants its options before the overrides.
    flag, folder, *overrides = with_shorthands(["seed=1", f"sweep={file}"])
    assert (flag, overrides) == ("--config-dir", ["seed=1", "sweep=mine"])
    assert (Path(folder) / "sweep" / "mine.yaml").read_text() == "trials: 3\n"
    assert with_shorthands(["sweep=smoke", "seed=1"]) == ["sweep=smoke", "seed=1"]
    with pytest.raises(ValueError, match=r"sweep=nowhere.yaml: there is no such file \(presets: .*smoke"):
        with_shorthands(["sweep=nowhere.yaml"])
