"""Commands made by `entry`: what reaches `run`, and the one line for what a user got wrong."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hydra.errors import MissingConfigException

from launch import compose
from launch.compose import (
    check_part,
    compose_config,
    entry,
    instantiate_part,
    job_arguments,
    part_keys,
    plain,
    quote,
    read_config,
    settings,
)
from launch.errors import explain
from tests.launch.parts import TrainerSettings

TRAIN = """
defaults: [_self_, {hydra: default}, {camera: small}, {data: shards}, {experiment: null}]
paths: {runs: runs}
name: ???
trainer: {max_steps: 3, clip: null}
copied: ${trainer.max_steps}
"""


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A conf folder of its own, with this house's Hydra settings, in a working directory that must stay clean."""
    folder = tmp_path / "conf"
    for name, text in {
        "train.yaml": TRAIN,
        "camera/small.yaml": "_target_: tests.launch.parts.Camera\nwidths: [1, 2]\n",
        "camera/large.yaml": "_target_: tests.launch.parts.Camera\nwidths: [8, 8]\n",
        "data/shards.yaml": "shards: null\n",
        "experiment/long.yaml": "# @package _global_\ntrainer: {max_steps: 99}\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "hydra").symlink_to(compose.conf_folder() / "hydra")
    monkeypatch.setattr(compose, "conf_folder", lambda: folder)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return folder


def command(arguments, run):
    """Run a command as a shell would; return exit code."""
    main = entry("train")(run)
    before = sys.argv
    sys.argv = ["cami2v train", *arguments]
    try:
        main()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return 0


def shards(folder):
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({}))
    return folder


@pytest.mark.usefixtures("conf")
def test_run_gets_the_config_and_nothing_is_written(tmp_path):
    seen = []
    assert command(["experiment=long", "camera=large", "name=a"], lambda config: seen.append(plain(config))) == 0
    assert seen[0]["trainer"]["max_steps"] == seen[0]["copied"] == 99
    assert seen[0]["camera"]["widths"] == [8, 8]
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.usefixtures("conf")
def test_arguments_that_no_yaml_mentions_can_be_set_like_any_other():
    overrides = ["camera.scale=2", "camera.bounds.low=1", "camera.bounds.high=3", "name=a"]
    seen = []
    assert command(overrides, lambda config: seen.append(config)) == 0
    for config in (seen[0], compose_config("train", overrides)):
        camera = instantiate_part(config.camera, "camera")
        assert (camera.scale, camera.bounds.low, camera.bounds.high) == (2.0, 1.0, 3.0)
    assert command(["-m", "camera.scale=2,3", "name=a"], lambda config: seen.append(config)) == 0
    assert [config.camera.scale for config in seen[1:]] == [2, 3]


def raising(error):
    def run(config):
        raise error

    return run


def test_a_launcher_that_is_not_installed_names_its_package():
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/submitit_slurm", options=["basic"])
    assert explain(error) == (
        "hydra/launcher=submitit_slurm: no such preset (choose from: basic; pip install 'cami2v[submitit]' brings "
        "submitit_*)"
    )


@pytest.mark.usefixtures("conf")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["trainer.max_step=4"],
            "trainer.max_step=4: no such key; did you mean 'max_steps'? (keys of trainer: max_steps, ",
        ),
        (["camra=large"], "camra=large: no such key; did you mean 'camera'? (keys of the config: "),
        (["camera=lage"], "camera=lage: no such preset; did you mean 'large'? (choose from: large, small)"),
        (["camera=["], "cannot read 'camera=[': expected key=value"),
        (["data=nowhere"], "data=nowhere: expected a shard set (a folder with manifest.json"),
        (["+camera.scale=two"], "camera.scale: got 'two' (str), expected float"),
        (["camera.scale=two"], "camera.scale: got 'two' (str), expected float"),
        (["camera.bounds.lov=1"], "camera.bounds.lov: no such key for tests.launch.parts.Bounds; did you mean 'low'?"),
        (["camera.scal=2"], "camera.scal=2: no such key"),
        (["trainer.max_steps=two"], "trainer.max_steps: got 'two' (str), expected int"),
        (["trainer=3"], "trainer: got 3, expected a mapping of settings"),
        (["trainer.max_steps=0"], "trainer.max_steps: got 0, expected at least 1"),
        (["trainer.clip=${nowhere}"], "trainer.clip: Interpolation key 'nowhere' not found"),
        ([], "name: required and not set, write name=<value>"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(arguments, line, capsys, tmp_path):
    def run(config):
        instantiate_part(config.camera, "camera")
        settings(config.trainer, TrainerSettings, "trainer")
        assert not config.name

    assert command(arguments, run) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.usefixtures("conf")
def test_the_traceback_of_a_user_error_is_on_request(capsys, monkeypatch):
    assert command([], raising(ValueError("poses/a.txt: 3 poses, 4 frames"))) == 2
    assert capsys.readouterr().err == "error: poses/a.txt: 3 poses, 4 frames\n"
    monkeypatch.setenv("CAMI2V_TRACEBACK", "1")
    assert command([], raising(ValueError("poses/a.txt: 3 poses, 4 frames"))) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("error: poses/a.txt: 3 poses, 4 frames\n")


@pytest.mark.usefixtures("conf")
def test_an_error_from_another_package_says_where_to_look(capsys):
    assert command([], lambda config: json.load(io.StringIO("{"))) == 2
    assert capsys.readouterr().err.endswith("(raised inside json; CAMI2V_TRACEBACK=1 shows where)\n")


@pytest.mark.usefixtures("conf")
def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command([], lambda config: 1 / 0)


@pytest.mark.usefixtures("conf")
def test_multirun_runs_every_job_and_reports_the_wrong_one(capsys):
    seen = []

    def run(config):
        seen.append(settings(config.trainer, TrainerSettings, "trainer").max_steps)

    assert command(["-m", "trainer.max_steps=1,0,2"], run) == 2
    assert seen == [1, 2]
    assert "error: trainer.max_steps: got 0, expected at least 1" in capsys.readouterr().err


@pytest.mark.usefixtures("conf")
def test_a_job_can_be_started_again_from_its_arguments():
    seen = []
    override = "hydra/job_logging=stdout"

    def run(config):
        again = compose_config("train", [item for item in job_arguments() if not item.startswith("hydra")])
        seen.append((plain(again.trainer), job_arguments()))
        assert again == config

    assert command(["-m", "trainer.max_steps=4,5", "name=a", override], run) == 0
    assert [steps["max_steps"] for steps, _ in seen] == [4, 5]
    assert seen[0][1] == [override, "trainer.max_steps=4", "name=a"]


@pytest.mark.usefixtures("conf")
def test_hydra_keeps_its_own_flags(capsys):
    assert command(["--help"], raising(AssertionError("help must not run"))) == 0
    assert "camera: large, small" in capsys.readouterr().out
    assert command(["--cfg", "job", "camera=large"], raising(AssertionError("must not run"))) == 0
    assert "- 8" in capsys.readouterr().out


@pytest.mark.usefixtures("conf")
def test_a_folder_of_shards_is_a_value_of_data(tmp_path):
    folder = shards(tmp_path / "my (odd), shards")
    assert compose_config("train", [f"data={shards(tmp_path / 'set')}"]).data.shards == str(tmp_path / "set")
    assert compose_config("train", [f"data.shards={quote(str(folder))}"]).data.shards == str(folder)
    assert compose_config("train", ["data=shards"]).data.shards is None
    for address in ("https://host.invalid/a/b", "s3://bucket/set", "hf://datasets/me/set"):
        assert compose_config("train", [f"data={address}"]).data.shards == address
    with pytest.raises(ValueError, match="that folder has no manifest.json"):
        compose_config("train", [f"data={tmp_path}"])


@pytest.mark.usefixtures("conf")
def test_parts_are_found_and_checked_without_building():
    config = compose_config("train", ["+nested.list=[{_target_:tests.launch.parts.Encoder}]"])
    assert part_keys(config) == ["camera", "nested.list[0]"]
    check_part(config.camera, "camera")
    with pytest.raises(ValueError, match="nested: has no _target_"):
        check_part(config.nested, "nested")


def test_a_run_config_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.yaml: there is no such file"):
        read_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml: not a readable config"):
        read_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("a: 1\n")
    assert read_config(tmp_path / "config.yaml").a == 1
