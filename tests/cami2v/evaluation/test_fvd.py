"""The metric over videos, its preprocessing and its detectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cami2v.evaluation.frechet import FeatureMoments, frechet_distance
from cami2v.evaluation.fvd import FrechetVideoDistance
from cami2v.evaluation.fvd_preprocessing import CONVENTIONS, middle_frames, preprocess, to_square
from cami2v.evaluation.video_detectors import ClassifierDetector, TorchScriptDetector
from tests.cami2v.evaluation.detectors import PixelStatistics


def videos(count: int, *, seed: int, height: int = 32, width: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 2, height, width), generator=generator, dtype=torch.uint8)


def detector(preprocessing: str = "videogpt_squash") -> ClassifierDetector:
    return ClassifierDetector(network=PixelStatistics(), preprocessing=preprocessing, min_frames=1)


def metric() -> FrechetVideoDistance:
    return FrechetVideoDistance(detector=detector())


def test_batches_make_no_difference():
    real, generated = videos(6, seed=0), videos(5, seed=1)
    whole, parts = metric(), metric()
    whole.update(real, real=True)
    whole.update(generated, real=False)
    for video in generated.split(1):
        parts.update(video, real=False)
    for pair in real.split(2):
        parts.update(pair, real=True)
    torch.testing.assert_close(parts.compute(), whole.compute(), rtol=1e-6, atol=0)
    sets = [FeatureMoments.of(PixelStatistics()(preprocess(each, "videogpt_squash"))) for each in (real, generated)]
    torch.testing.assert_close(whole.compute(), frechet_distance(*sets), rtol=1e-6, atol=0)


def test_equal_sets_are_at_no_distance_and_reset_forgets():
    distance = metric()
    for real in (True, False):
        distance.update(videos(4, seed=0), real=real)
    assert distance.compute() == pytest.approx(0, abs=1e-6)
    distance.reset()
    distance.update(videos(4, seed=0), real=True)
    with pytest.raises(ValueError, match="covariance of 0 feature vector"):
        distance.compute()


def test_states_are_summed_over_processes():
    together = FrechetVideoDistance(
        detector=detector(),
        distributed_available_fn=lambda: True,
        dist_sync_fn=lambda state, group: [state, state],  # two processes that saw the same
    )
    alone = metric()
    for real in (True, False):
        together.update(videos(3, seed=int(real)), real=real)
        for _ in range(2):
            alone.update(videos(3, seed=int(real)), real=real)
    torch.testing.assert_close(together.compute(), alone.compute(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize(("height", "width"), [(32, 48), (300, 200), (240, 240)])
def test_every_convention_gives_the_detectors_size(name, height, width):
    clips = videos(2, seed=0, height=height, width=width)
    assert to_square(clips, CONVENTIONS[name]).shape[-2:] == (CONVENTIONS[name].size,) * 2
    prepared = preprocess(clips, name)
    assert prepared.shape == (2, 3, 2, 224, 224)
    assert prepared.abs().max() <= 1


def test_a_crop_keeps_the_middle_and_a_squash_everything():
    clip = torch.zeros((1, 3, 1, 224, 448), dtype=torch.uint8)
    clip[..., 112:336] = 255
    assert (preprocess(clip, "videogpt_crop") == 1).all()
    assert preprocess(clip, "videogpt_squash").mean() == pytest.approx(0, abs=0.02)


def test_unknown_conventions_are_refused():
    with pytest.raises(ValueError, match="FVD convention 'videogpt' is unknown; choose one of videogpt_squash"):
        preprocess(videos(1, seed=0), "videogpt")
    with pytest.raises(ValueError, match="FVD convention"):
        detector("i3d")


@pytest.mark.parametrize(("length", "count"), [(16, 16), (25, 16), (32, 16), (5, 1)])
def test_middle_frames_lie_inside_and_in_the_middle(length, count):
    frames = middle_frames(length, count)
    assert len(frames) == count
    assert frames[0] >= 0
    assert frames[-1] < length
    assert abs(frames[0] - (length - 1 - frames[-1])) <= 1


def test_published_middle_frames_run_past_the_end():
    assert middle_frames(16, 16, compatibility="published")[-1] == 22
    with pytest.raises(ValueError, match="17 frames asked of a video of 16"):
        middle_frames(16, 17)


def test_a_torchscript_detector_is_called_as_published(tmp_path: Path):
    torch.jit.script(PixelStatistics()).save(str(tmp_path / "detector.pt"))
    prepared = preprocess(videos(2, seed=0), "styleganv_128")
    features = TorchScriptDetector(path=tmp_path / "detector.pt")(prepared)
    torch.testing.assert_close(features, PixelStatistics()(prepared))


def test_files_that_are_no_torchscript_are_refused(tmp_path: Path):
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match="text.pt: not a TorchScript file"):
        TorchScriptDetector(path=tmp_path / "text.pt")
    with pytest.raises(ValueError, match="absent.pt: no such file"):
        TorchScriptDetector(path=tmp_path / "absent.pt")
