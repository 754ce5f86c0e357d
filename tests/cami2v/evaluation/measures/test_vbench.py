"""VBench's result files, made up after vbench 0.1.5: a mean and a list of videos per dimension."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cami2v.evaluation.folder import RequestedCameras
from cami2v.evaluation.measures.base import JudgedClip
from cami2v.evaluation.measures.vbench import VBenchScores
from launch.compose import compose_config, instantiate_part


def results(folder: Path, name: str, scores: dict[str, dict[str, float | bool]]) -> None:
    """Write a file as VBench does, of videos that lay elsewhere then."""
    held = {
        dimension: [0.5, [{"video_path": f"/a/{video}", "video_results": score} for video, score in videos.items()]]
        for dimension, videos in scores.items()
    }
    (folder / "generated").mkdir(exist_ok=True)
    (folder / "generated" / f"results_{name}_eval_results.json").write_text(json.dumps(held))


def clip(name: str) -> JudgedClip:
    cameras = RequestedCameras(
        world_to_camera=np.zeros((1, 3, 4)), intrinsics_pixels=np.ones((1, 4)), translation_scale=np.ones(1),
        height=8, width=8,
    )  # fmt: skip
    return JudgedClip(
        clip_id=name, video_set="generated", video=Path(f"{name}.mp4"), true_video=Path("t.mp4"), cameras=cameras
    )


def test_scores_of_several_files_belong_to_their_clips(tmp_path: Path) -> None:
    results(tmp_path, "one", {"motion_smoothness": {"a.mp4": 0.9, "b.mp4": 0.8}, "dynamic_degree": {"a.mp4": True}})
    results(tmp_path, "two", {"imaging_quality": {"a.mp4": 61.5}, "scene": {"a.mp4": 0.1}})
    measure = VBenchScores(results=tmp_path)
    assert measure.judges("generated")
    assert not measure.judges("ground_truth")
    values = measure.values(measure.judge(clip("a")))
    assert {name: value for name, value in values.items() if value is not None} == {
        "VBench_motion_smoothness": 0.9,
        "VBench_dynamic_degree": 1.0,
        "VBench_imaging_quality": 61.5,
    }
    (failure,) = measure.failures(measure.judge(clip("c")))
    assert failure.reason == "not judged by VBench"
    assert len(measure.describe()["results"]) == 2


def test_files_that_disagree_or_are_no_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no <video set>/\\*_eval_results.json; run vbench evaluate"):
        VBenchScores(results=tmp_path).describe()
    results(tmp_path, "one", {"motion_smoothness": {"a.mp4": 0.9}})
    results(tmp_path, "two", {"motion_smoothness": {"a.mp4": 0.7}})
    with pytest.raises(ValueError, match="two_eval_results.json: another motion_smoothness of a.mp4"):
        VBenchScores(results=tmp_path).judge(clip("a"))
    other = tmp_path / "other"
    other.mkdir()
    results(other, "one", {})
    (other / "generated" / "results_one_eval_results.json").write_text('{"motion_smoothness": 3}')
    with pytest.raises(ValueError, match="not a result file of VBench"):
        VBenchScores(results=other).judge(clip("a"))


def test_the_preset_wants_its_folder(tmp_path: Path) -> None:
    node = compose_config("evaluate", ["evaluation/vbench=results", f"evaluation.measures.vbench.results={tmp_path}"])
    measure = instantiate_part(node.evaluation.measures.vbench, "evaluation.measures.vbench")
    assert measure.name == "vbench"
