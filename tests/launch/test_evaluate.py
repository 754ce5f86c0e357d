"""`cami2v evaluate` without a checkpoint, on shards packed for the occasion: two frames are too few for SfM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cami2v.video import read_frames
from launch.compose import compose_config, settings
from launch.evaluate import run
from launch.pack import run as pack
from launch.sample import run as sample
from launch.sweeps.objective import EVALUATION, final_value
from launch.sweeps.settings import SweepSettings
from tests.launch.untrained import random_run, untrained_run

SMALL = ["data.frames=4", "data.resolution=[64,64]", "data.frame_stride=1", "sampler.steps=2"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    world = {
        "rooms": 1,
        "sources": "{test: 2}",
        "clips_per_source": 1,
        "frames_per_clip": 4,
        "lead_frames": 0,
        "width": 64,
        "height": 36,
        "path_kinds": ["orbit"],
    }
    overrides = ["~world.sources", *(f"++world.{name}={value}" for name, value in world.items())]
    places = [f"output={folder / 'shards'}", f"raw={folder / 'raw'}", "pack.min_frames=4", "pack.processes=1"]
    pack(compose_config("pack", [*overrides, *places]))
    return folder / "shards"


def evaluate(shards: Path, output: Path, *overrides: str) -> None:
    size = ["data.resolution=[36,63]", "data.frames=2", "evaluation.trials=2"]
    run(compose_config("evaluate", [f"data.shards={shards}", f"output={output}", *size, *overrides]))


def test_failures_are_reported_not_hidden(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(shards, tmp_path, "compatibility=cami2v", "evaluation.bootstrap.level=0.9")
    output = capsys.readouterr().out
    assert "| ground truth (estimator's own error) | 2 | 0/2 | 4/4 | - |" in output
    assert output.splitlines()[-1] == str(tmp_path / "report.md")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["evaluation"]["resolution"] == [36, 63]
    assert results["evaluation"]["checkpoint"] is None
    assert "- generated on: nothing was generated" in output
    assert "- measured on: cpu=" in output
    failures = [failure for clip in results["clips"] for failure in clip["failures"]]
    assert {failure["reason"] for failure in failures if failure["measure"] == "poses"} == {"no model"}
    assert "2 of 2 clips and 4 of 4 trials vanish without a trace" in output
    assert results["bootstrap"]["level"] == 0.9
    page = (tmp_path / "report.html").read_text()
    assert all((tmp_path / "report" / f"{clip['clip_id']}.html").is_file() for clip in results["clips"])
    assert "Published procedure: ground truth" in page


def test_a_depth_network_adds_columns_in_metres(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["evaluation.clips=1", "evaluation.trials=1", "evaluation.clip_pages=false"]
    few += ["evaluation.measures.epipolar=null", "evaluation.measures.frames=null"]
    evaluate(shards, tmp_path, *few)
    assert "No TransErr_abs and CamMC_abs: no depth network" in capsys.readouterr().out
    evaluate(shards, tmp_path, *few, "depth=tiny", "depth_weights=random", "data.scale_policy=relative")
    output = capsys.readouterr().out
    assert "| CamMC | TransErr_abs | CamMC_abs | FVD VideoGPT |" in output
    assert "Random weights: errors in metres mean nothing." in output
    results = json.loads((tmp_path / "results.json").read_text())
    settings_of_depth = results["measures"]["metric_poses"]
    assert (settings_of_depth["depth"], settings_of_depth["depth_short_side"]) == ("DepthAnythingV2", 518)
    # Two frames of 36 lines have no path, so there is nothing to bring to metres; the true videos are not compared.
    (clip,) = results["clips"]
    assert clip["rows"]["metric_poses"]["trials"][0]["failure"] == "no path"
    assert {failure["measure"] for failure in clip["failures"]} == {"poses"}


def test_stages_run_alone(shards: Path, tmp_path: Path) -> None:
    evaluate(shards, tmp_path, "evaluation.stages=[generate]", "evaluation.clips=1")
    assert len(list((tmp_path / "videos" / "ground_truth").glob("*.mp4"))) == 1
    assert not (tmp_path / "measurements").exists()
    with pytest.raises(ValueError, match="holds an evaluation with clips=1, this one has 2"):
        evaluate(shards, tmp_path, "evaluation.stages=[generate]")
    with pytest.raises(ValueError, match="1 of 1 clips of ground_truth are not measured"):
        evaluate(shards, tmp_path, "evaluation.stages=[report]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.trials=0", "evaluation.trials=0: must be at least 1"),
        ("evaluation.measures={poses: null, epipolar: null, frames: null}", "nothing would be measured"),
        ("evaluation.clips=3", "3 clips asked for"),
        ("depth=tiny", "depth_weights: not set, and a network without weights measures nothing"),
        ("depth_weights=random", "depth_weights=random: of no network; add depth="),
        (
            "evaluation.metric_scale.min_points=0; depth=tiny",
            "evaluation.metric_scale.min_points=0: must be at least 1",
        ),
        ("evaluation.measures.poses=null; depth=tiny", "evaluation.measures.poses, which estimates them, is null"),
        ("evaluation.interventions=true", "needs a model to intervene on"),
        ("evaluation.stages=[generate,judge]", "evaluation.stages"),
        ("+evaluation.trails=3", "evaluation.trails"),
        (
            "evaluation.estimator.bounds.max_behind_camera_share=many",
            "evaluation.estimator.bounds.max_behind_camera_share",
        ),
    ],
)
def test_wrong_settings_name_their_key(shards: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        evaluate(shards, tmp_path / "out", *override.split("; "))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "videos").exists()


@pytest.mark.slow
def test_a_checkpoint_is_generated_from_and_intervened_on(shards: Path, tmp_path: Path) -> None:
    run_folder = untrained_run(tmp_path / "run", [f"data.shards={shards}", "data.split=test", *SMALL])
    overrides = ["evaluation.trials=1", "evaluation.interventions=true", f"checkpoint={run_folder}"]
    overrides.append("guards.camera_alive=warn")
    run(compose_config("evaluate", [f"data.shards={shards}", *overrides]))
    output = run_folder / "evaluation" / "test"
    assert "**Camera effect: THE CAMERA CHANGES NOTHING: relative change" in (output / "report.md").read_text()
    results = json.loads((output / "results.json").read_text())
    assert results["evaluation"]["frames"] == 4
    assert results["evaluation"]["resolution"] == [64, 64]
    assert results["evaluation"]["checkpoint"]["path"] == str(run_folder)
    (generated_on,) = results["machines"]["generate"]
    assert generated_on["device"] == results["hardware"]["device"]
    assert generated_on["torch"] == results["versions"]["torch"]
    assert f"- generated on: cpu={generated_on['cpu']}, cores=" in (output / "report.md").read_text()
    assert list(results["summary"]) == ["ground_truth", "generated", "generated_shuffled", "generated_stationary"]
    summary = results["summary"]
    errors = {name: summary[name]["figures"]["MSE"]["mean"] for name in list(summary)[1:]}
    # An untrained camera branch changes nothing, which the guard has said: same noise, same video.
    assert results["camera_effect"]["alive"] is False
    assert errors["generated"] == errors["generated_shuffled"] == errors["generated_stationary"]
    written = {path: path.stat().st_mtime_ns for path in output.glob("videos/*/*.mp4")}
    assert len(written) == 8
    run(compose_config("evaluate", [f"data.shards={shards}", *overrides]))
    assert {path: path.stat().st_mtime_ns for path in output.glob("videos/*/*.mp4")} == written
    # A sweep by camera error finds its number, though no path could be estimated here.
    sweep = settings(compose_config("sweep", ["sweep=camera_error"]).sweep, SweepSettings, "sweep")
    output.rename(run_folder / EVALUATION)
    assert final_value(run_folder, sweep.objective) > 0


def test_a_model_that_ignores_its_cameras_is_refused_before_anything_is_written(shards: Path, tmp_path: Path) -> None:
    run_folder = untrained_run(tmp_path / "run", [f"data.shards={shards}", "data.split=test", *SMALL])
    with pytest.raises(ValueError, match=f"checkpoint={run_folder}: THE CAMERA CHANGES NOTHING"):
        run(compose_config("evaluate", [f"data.shards={shards}", f"checkpoint={run_folder}"]))
    assert not (run_folder / "evaluation").exists()


def test_the_effect_of_a_working_camera_is_among_the_results(shards: Path, tmp_path: Path) -> None:
    run_folder = random_run(tmp_path / "run", [f"data.shards={shards}", "data.split=test", *SMALL])
    overrides = [f"checkpoint={run_folder}", "evaluation.stages=[generate]", "evaluation.clips=1"]
    run(compose_config("evaluate", [f"data.shards={shards}", *overrides]))
    record = json.loads((run_folder / "evaluation" / "test" / "camera_effect.json").read_text())
    assert record["alive"] is True
    assert record["changes"]["right"] == 0
    assert record["clip_id"] != record["shuffled_with"]
    assert min(record["changes"]["stationary"], record["changes"]["shuffled"]) > 1e-3


def test_a_checkpoint_is_sampled_as_cami2v_sample_does(shards: Path, tmp_path: Path) -> None:
    run_folder = random_run(tmp_path / "run", [f"data.shards={shards}", "data.split=test", *SMALL])
    output = run_folder / "evaluation" / "test"
    shaped = ["noise_shaping=300", "metres_per_unit=2", "depth=tiny", "depth_weights=random"]
    how = ["precision=bf16", "branches=together", "decode_frames=2", *shaped]

    def generate(*overrides: str) -> np.ndarray:
        few = ["evaluation.stages=[generate]", "evaluation.clips=1"]
        run(compose_config("evaluate", [f"data.shards={shards}", f"checkpoint={run_folder}", *few, *overrides]))
        (video,) = output.glob("videos/generated/*.mp4")
        return read_frames(video).astype(int)

    usual = generate("offload=true")
    assert generate().shape == usual.shape, "offloading is not part of what a folder holds"
    assert "precision" not in json.loads((output / "evaluation.json").read_text())["checkpoint"]
    with pytest.raises(ValueError, match="another evaluation|holds an evaluation with"):
        generate("precision=bf16")
    seed = json.loads((output / "manifest.json").read_text())["clips"][0]["seed"]
    output.rename(tmp_path / "usual")
    made = generate(*how)
    assert np.abs(made - usual).mean() > 1
    checkpoint = json.loads((output / "evaluation.json").read_text())["checkpoint"]
    assert checkpoint["noise_shaping"] == 300
    assert checkpoint["precision"] == "bf16"
    assert checkpoint["depth"]["network"].endswith("DepthAnythingV2")
    clip = next(output.glob("videos/generated/*.mp4")).stem
    chosen = [f"clips=[{clip}]", f"seed={seed}", "trajectory=own", f"output={tmp_path / 'sampled'}", "crf=10", *how]
    sample(compose_config("sample", [f"checkpoint={run_folder}", f"data.shards={shards}", *chosen]))
    sampled = read_frames(tmp_path / "sampled" / f"{clip}-own-seed{seed}.mp4").astype(int)
    # The command's image is in whole grey levels, this one's is not.
    assert np.abs(made - sampled).mean() < 0.1 * np.abs(made - usual).mean()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scene_mask={window: 3}", "scene_mask: only noise_shaping uses it"),
        ("noise_shaping=900", "set metres_per_unit to the metres in one unit"),
        ("noise_shaping=900; metres_per_unit=2", "noise_shaping: this model has no depth network; add depth="),
        ("compile_mode=max-autotune", "compile_mode: got max-autotune, a mode of inductor, but compile=null"),
        ("data.frames=6", "overlap: got 4; 6 frames are made in windows of 4, choose 1 to 3"),
    ],
)
def test_a_model_cannot_be_sampled_in_any_way(shards: Path, tmp_path: Path, override: str, message: str) -> None:
    run_folder = random_run(tmp_path / "run", [f"data.shards={shards}", "data.split=test", *SMALL])
    with pytest.raises(ValueError, match=message) as error:
        run(compose_config("evaluate", [f"data.shards={shards}", f"checkpoint={run_folder}", *override.split("; ")]))
    assert "\n" not in str(error.value)
    assert not (run_folder / "evaluation").exists()
