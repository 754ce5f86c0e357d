"""LPIPS and CLIP frame consistency, over networks with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from cami2v.evaluation.clip_embedding import CLIPImageEmbedder
from cami2v.evaluation.folder import EvaluationFolder
from cami2v.evaluation.generate import write_ground_truth
from cami2v.evaluation.measure import measure_clips, open_jobs
from cami2v.evaluation.measures.base import Measure, Row
from cami2v.evaluation.measures.clip_consistency import CLIPConsistency
from cami2v.evaluation.measures.perceptual import PerceptualDistance
from cami2v.file_hash import file_sha256
from cami2v.video import read_frames, write_mp4
from launch.compose import compose_config, instantiate_part
from tests.cami2v.evaluation.clips import random_batch

TOWER = {"width": 32, "num_heads": 2, "layers": 1, "patch_size": 56, "output_width": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> EvaluationFolder:
    """A true clip; its copy, generated; and a generated one that is frozen."""
    folder = EvaluationFolder(tmp_path_factory.mktemp("evaluation"))
    batches = [random_batch(name, seed=number, height=64, width=80) for number, name in enumerate(("copy", "frozen"))]
    write_ground_truth(folder, batches, crf=10)
    copy = folder.video("generated", "copy")
    copy.parent.mkdir(parents=True)
    copy.write_bytes(folder.video("ground_truth", "copy").read_bytes())
    frames = read_frames(folder.video("ground_truth", "frozen"))
    write_mp4(folder.video("generated", "frozen"), np.repeat(frames[:1], len(frames), axis=0), 8)
    return folder


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(torchvision.models.alexnet().state_dict(), path)
    return path


def rows(folder: EvaluationFolder, measure: Measure) -> dict[str, Row]:
    jobs = [job for job in open_jobs(folder, measure) if job.clip.video_set == "generated"]
    return {row["clip_id"]: row for row in measure_clips(folder, measure, jobs, processes=1)}


def test_lpips_is_zero_for_a_copy_and_uses_the_file_it_is_given(folder: EvaluationFolder, alexnet: Path) -> None:
    hub = torch.hub.get_dir()
    measure = PerceptualDistance(backbone="alex", weights=alexnet, sha256=file_sha256(alexnet))
    found = rows(folder, measure)
    assert torch.hub.get_dir() == hub
    loaded = torch.load(alexnet)["features.0.weight"]
    assert any(torch.equal(value, loaded) for value in measure.network.parameters())
    assert measure.values(found["copy"]) == {"LPIPS": 0.0}
    assert found["frozen"]["distances"][2] > 0
    expected = sum(found["frozen"]["distances"][1:]) / 3
    assert measure.values(found["frozen"])["LPIPS"] == pytest.approx(expected)
    assert {job.clip.video_set for job in open_jobs(folder, measure)} <= {"generated"}


def test_lpips_wants_torchvisions_file(alexnet: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine.pth has sha256 \w{64}, not the expected 7be5be79"):
        PerceptualDistance(backbone="alex", weights=alexnet, sha256=None).prepare()
    with pytest.raises(ValueError, match=r"no weights at .*absent.pth; get them with `python -c 'import torchvision"):
        PerceptualDistance(backbone="vgg", weights=tmp_path / "absent.pth", sha256=None).prepare()


def test_a_frozen_video_is_perfectly_consistent_and_another_is_not(folder: EvaluationFolder, tmp_path: Path) -> None:
    tower = CLIPImageEmbedder(**TOWER).tower.state_dict()
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {f"embedder.model.visual.{name}": value for name, value in tower.items()}}, path)
    measure = CLIPConsistency(**TOWER, weights=path, sha256=None, precision="float32")
    found = rows(folder, measure)
    assert measure.values(found["frozen"]) == {
        "CLIP_consecutive": pytest.approx(1, abs=1e-4),
        "CLIP_first": pytest.approx(1, abs=1e-4),
    }
    assert measure.values(found["copy"])["CLIP_consecutive"] < 1 - 1e-4  # type: ignore[operator]  # a number
    assert found["copy"]["to_previous"][0] == pytest.approx(found["copy"]["to_first"][0])
    assert found["copy"]["to_previous"][1] != found["copy"]["to_first"][1]
    half = CLIPConsistency(**TOWER, weights=path, sha256=None, precision="bfloat16")
    assert rows(folder, half)["copy"]["to_first"] == pytest.approx(found["copy"]["to_first"], abs=0.02)


def test_towers_of_other_sizes_are_refused(folder: EvaluationFolder, tmp_path: Path) -> None:
    tower = CLIPImageEmbedder(**(TOWER | {"width": 64})).tower.state_dict()
    torch.save({f"visual.{name}": value for name, value in tower.items()}, tmp_path / "other.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "none.pt")
    for name, message in (("other.pt", "not this image tower"), ("none.pt", "holds 0 image towers")):
        measure = CLIPConsistency(**TOWER, weights=tmp_path / name, sha256=None, precision="float32")
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            _ = measure.network


@pytest.mark.parametrize("choice", ["lpips=alex", "lpips=vgg", "clip=openclip_vit_h_14"])
def test_every_preset_is_a_measure(choice: str) -> None:
    name = choice.partition("=")[0]
    node = compose_config("evaluate", [f"evaluation/{choice}"]).evaluation.measures[name]
    assert instantiate_part(node, f"evaluation.measures.{name}").name == name
