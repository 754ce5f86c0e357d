"""The learned estimator on a stand-in package of VGGT's documented interface; the real one has never been run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cami2v.evaluation.measures.poses import CameraPoses
from cami2v.evaluation.pose_estimation.base import EstimatedPath, FailedEstimate, FailureReason
from cami2v.evaluation.pose_estimation.learned import LearnedQuality, VGGTPoses, network_images
from tests.cami2v.evaluation.clips import configured_estimator

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 60, 100, 3), dtype=np.uint8)
INTRINSICS = np.tile([100.0, 100.0, 50.0, 30.0], (4, 1))

MODEL = """
import torch
class VGGT(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.step = torch.nn.Parameter(torch.zeros(3))
    def aggregator(self, images):
        assert images.ndim == 5 and images.shape[0] == 1 and images.shape[2] == 3, images.shape
        assert 0 <= images.min() and images.max() <= 1
        return [torch.zeros(1, images.shape[1], 1, 8), self.step.expand(1, images.shape[1], 1, 3)], 5
    def camera_head(self, tokens):
        moved = tokens[-1][:, :, 0] * torch.arange(tokens[-1].shape[1])[None, :, None]
        return [torch.zeros_like(moved), moved]
"""
DECODER = """
import torch
def pose_encoding_to_extri_intri(encoding, image_size_hw):
    poses = torch.eye(4)[:3].repeat(*encoding.shape[:2], 1, 1)
    poses[..., 3] = encoding
    height, width = image_size_hw
    intrinsics = torch.tensor([[500.0, 0, width / 2], [0, 500.0, height / 2], [0, 0, 1]])
    return poses, intrinsics.repeat(*encoding.shape[:2], 1, 1)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "installed" / "vggt"
    for folder in (root, root / "models", root / "utils"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    (root / "models" / "vggt.py").write_text(MODEL)
    (root / "utils" / "pose_enc.py").write_text(DECODER)
    monkeypatch.syspath_prepend(root.parent)
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "vggt"]:
        del sys.modules[name]


def weights(folder: Path, step: list[float], name: str = "model.pt") -> str:
    path, state = folder / name, {"step": torch.tensor(step)}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_the_networks_path_is_returned_for_every_seed(package: Path, tmp_path: Path, name: str) -> None:
    estimator = configured_estimator(
        "evaluation/estimator=vggt", f"evaluation.estimator.weights={weights(tmp_path, [0.5, 0.0, 0.0], name)}"
    )
    estimator.prepare()
    first, second = estimator.estimate_trials(FRAMES, INTRINSICS, (0, 1))
    assert first is second
    assert isinstance(first, EstimatedPath)
    np.testing.assert_allclose(first.world_to_camera[:, :, 3], [[0.5 * frame, 0, 0] for frame in range(4)])
    quality = first.quality
    assert isinstance(quality, LearnedQuality)
    assert quality.extent == pytest.approx(1.5)
    # 500 pixels at a width of 518 are 96.5 at the width of 100; 100 are true.
    assert quality.focal_ratio == pytest.approx(500 * 100 / 518 / 100)
    assert json.dumps(CameraPoses(estimator=estimator, trials=2).describe())
    assert estimator.describe()["weights_sha256"]


def test_poses_that_are_not_finite_are_a_failure(package: Path, tmp_path: Path) -> None:
    estimator = VGGTPoses(weights=weights(tmp_path, [float("nan"), 0.0, 0.0]), device="cpu")
    failed = estimator.estimate(FRAMES, INTRINSICS, seed=0)
    assert isinstance(failed, FailedEstimate)
    assert failed.reason is FailureReason.COLLAPSED


def test_absent_weights_are_one_clear_line(package: Path) -> None:
    for given in (None, "nowhere.pt"):
        with pytest.raises(ValueError, match=f"evaluation.estimator.weights={given}: no such file") as error:
            CameraPoses(estimator=VGGTPoses(weights=given, device="auto"), trials=1).prepare()
        assert "\n" not in str(error.value)


def test_an_absent_package_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match="the package vggt is not installed") as error:
        configured_estimator("evaluation/estimator=vggt").prepare()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("height", "width", "seen"), [(256, 455, (294, 518)), (256, 256, (518, 518)), (455, 256, (518, 518))]
)
def test_frames_have_the_size_the_network_was_trained_at(height: int, width: int, seen: tuple[int, int]) -> None:
    images = network_images(np.full((2, height, width, 3), 255, np.uint8))
    assert tuple(images.shape) == (2, 3, *seen)
    torch.testing.assert_close(images, torch.ones_like(images))
