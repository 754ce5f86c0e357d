"""The Frechet video distance as a measure: what its number says, and that nothing but the videos decides it."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange

from cami2v.evaluation.folder import EvaluationFolder, read_json
from cami2v.evaluation.fvd import FrechetVideoDistance
from cami2v.evaluation.fvd_flavours import FLAVOURS
from cami2v.evaluation.generate import write_generated, write_ground_truth
from cami2v.evaluation.measure import measure_clips, open_jobs
from cami2v.evaluation.measures.base import Row
from cami2v.evaluation.measures.video_features import VideoFeatures, packed, unpacked
from cami2v.file_hash import file_sha256
from cami2v.video import read_frames
from launch.compose import compose_config, conf_folder, instantiate_part
from tests.cami2v.evaluation.clips import random_batch
from tests.cami2v.evaluation.detectors import PixelStatistics

CLIPS, FRAMES = 5, 9


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript file that is called like StyleGAN-V's."""
    path = tmp_path_factory.mktemp("weights") / "stand_in.pt"
    torch.jit.script(PixelStatistics()).save(str(path))
    return path


def measure(stand_in: Path, **settings: Any) -> VideoFeatures:
    chosen: dict[str, Any] = {
        "weights": stand_in,
        "sha256": file_sha256(stand_in),
        "precision": "float32",
        "extrapolate": False,
    }
    return VideoFeatures(flavour="fvd_styleganv", **(chosen | settings))


def evaluation(root: Path, frames: int = FRAMES) -> EvaluationFolder:
    """Write true and generated videos that are not each other's."""
    folder = EvaluationFolder(root)
    batches = [random_batch(f"clip-{number}", seed=number, frames=frames) for number in range(CLIPS)]
    write_ground_truth(folder, batches, crf=10)
    write_generated(folder, batches, lambda batch: batch.video.flip(2), trajectories=("right",), crf=10)
    return folder


def judge(folder: EvaluationFolder, *measures: VideoFeatures, last_first: bool = False) -> dict[str, list[Row]]:
    """Measure a folder, its clips split between the measures; return the rows in clip order, but for their cost."""
    jobs = sorted(open_jobs(folder, measures[0]), key=lambda job: job.clip.clip_id, reverse=last_first)
    for number, each in enumerate(measures):
        list(measure_clips(folder, each, jobs[number :: len(measures)], processes=1))
    stored = {
        name: [read_json(folder.measurement("fvd_styleganv", name, clip)) for clip in folder.clip_ids()]
        for name in folder.video_sets()
    }
    return {
        name: [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
        for name, rows in stored.items()
    }


def metric_over(real: Iterable[np.ndarray], generated: Iterable[np.ndarray], weights: Path) -> float:
    metric = FrechetVideoDistance(detector=FLAVOURS["fvd_styleganv"].load(weights))
    for videos, is_real in ((real, True), (generated, False)):
        for video in videos:
            frames = rearrange(torch.from_numpy(video), "frames height width rgb -> 1 rgb frames height width")
            metric.update(frames, real=is_real)
    return float(metric.compute())


def test_the_distance_is_that_of_the_videos_whoever_measures_them_in_which_order(tmp_path: Path, weights: Path) -> None:
    one, other = evaluation(tmp_path / "one"), evaluation(tmp_path / "other")
    rows = judge(one, measure(weights))
    assert judge(other, measure(weights), measure(weights), last_first=True) == rows
    # Gone through once: a report reads them from disk one by one.
    distances = measure(weights).distances({name: iter(own) for name, own in rows.items()})
    videos = {name: [read_frames(one.video(name, clip)) for clip in one.clip_ids()] for name in one.video_sets()}
    expected = metric_over(videos["ground_truth"], videos["generated"], weights)
    assert distances["generated"]["value"] == pytest.approx(expected, rel=1e-6)
    floor = metric_over(videos["ground_truth"][::2], videos["ground_truth"][1::2], weights)
    assert distances["ground_truth"]["value"] == pytest.approx(floor, rel=1e-6)
    assert distances["ground_truth"]["compared"] == "one half of the true videos with the other"
    assert open_jobs(one, measure(weights)) == []
    assert len(open_jobs(one, measure(weights, precision="bfloat16"))) == 2 * CLIPS


def test_a_number_comes_with_all_that_it_depends_on(tmp_path: Path, weights: Path) -> None:
    folder = evaluation(tmp_path)
    folder.video("generated", "clip-3").write_bytes(b"not a video")
    rows = judge(folder, measure(weights))
    found = measure(weights, extrapolate=True).distances(rows)["generated"]
    assert (found["clips"], found["true_clips"]) == (CLIPS - 1, CLIPS)
    assert (found["frames"], found["resolution"]) == (str(FRAMES), "24x16")
    assert found["resize"] == "shorter side, centre crop 128x128 -> 224"
    assert found["weights"] == "stand_in.pt"
    assert found["weights_sha256"] == file_sha256(weights)
    notes = "; ".join(found["notes"])
    assert "4 videos for 400 features: the distance is biased upwards" in notes
    assert "unequal numbers of videos: 4 and 5" in notes
    assert "1 of 5 videos could not be read" in notes
    (failure,) = measure(weights).failures(rows["generated"][3])
    assert failure.reason == "unreadable video"
    assert "features" not in measure(weights).recorded(rows["generated"][0])


def test_without_true_videos_there_is_no_number(tmp_path: Path, weights: Path) -> None:
    rows = judge(evaluation(tmp_path), measure(weights))
    for others in ({}, {"ground_truth": rows["ground_truth"][:1]}):
        found = measure(weights).distances({"generated": rows["generated"], **others})["generated"]
        assert found["value"] is None
        assert found["notes"] == [f"no distance: 5 and {len(others)} usable videos, two of each are the least"]


def test_short_videos_fail_with_a_reason(tmp_path: Path, weights: Path) -> None:
    rows = judge(evaluation(tmp_path, frames=8), measure(weights))
    assert {(row["failure"], row["detail"]) for row in rows["generated"]} == {
        ("too few frames", "8, the network needs 9")
    }
    assert measure(weights).distances(rows)["generated"]["value"] is None


def test_weights_are_the_expected_ones_or_none(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights at .*absent.pt; get them with `cami2v weights fetch fvd_style"):
        measure(weights, weights=tmp_path / "absent.pt", sha256=None).prepare()
    with pytest.raises(ValueError, match=r"stand_in.pt has sha256 \w{64}, not the expected bec6519f"):
        measure(weights, sha256=None).prepare()
    with pytest.raises(ValueError, match="FVD flavour 'i3d' is unknown; choose one of fvd_videogpt"):
        VideoFeatures(flavour="i3d", weights=weights, sha256=None, precision="float32", extrapolate=False)


def test_features_survive_storage_and_networks_stay_behind(weights: Path) -> None:
    features = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    assert (unpacked(packed(features)) == features).all()
    loaded = measure(weights)
    assert loaded.network is loaded.network
    assert "network" not in vars(pickle.loads(pickle.dumps(loaded)))


@pytest.mark.parametrize("preset", sorted(path.stem for path in (conf_folder() / "evaluation" / "fvd").glob("*.yaml")))
def test_every_preset_is_a_flavour(preset: str) -> None:
    config = compose_config("evaluate", [f"evaluation/fvd={preset}"]).evaluation.measures
    names = [name for name in config if name.startswith("fvd")]
    assert len(names) == {"none": 0, "published": 2, "all": len(FLAVOURS)}.get(preset, 1)
    for name in names:
        assert instantiate_part(config[name], f"evaluation.measures.{name}").name == name
