"""I3D: its state, what it refuses, and how weights reach it. The published numbers are checked by tools.parity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cami2v.evaluation.i3d import I3D, load_i3d


@pytest.fixture(scope="module")
def network() -> I3D:
    torch.manual_seed(0)
    return I3D()


@pytest.mark.parametrize(("frames", "times"), [(9, 1), (16, 1), (17, 2)])
def test_logits_are_averaged_over_time(network, frames, times):
    videos = torch.rand((1, 3, frames, 224, 224), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        features = network.features(videos)
        logits = network(videos)
        by_time = network.logits(features)[0, :, :, 0, 0]
    assert features.shape == (1, 1024, times, 1, 1)
    torch.testing.assert_close(logits[0], by_time.mean(1))


def test_it_stays_in_evaluation_mode(network):
    assert not any(module.training for module in network.train().modules())


def test_short_videos_and_other_sizes_are_refused(network):
    with pytest.raises(ValueError, match="videos of 8 frames; it needs 9"):
        network(torch.zeros(1, 3, 8, 224, 224))
    with pytest.raises(ValueError, match="frames of 128x128; preprocess them to 224x224"):
        list(network.endpoints(torch.zeros(1, 3, 9, 128, 128)))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_load_strictly(network, tmp_path: Path, suffix):
    state = network.state_dict()
    assert len(state) == 344
    write = save_file if suffix == ".safetensors" else torch.save
    write(state, tmp_path / f"i3d{suffix}")
    torch.testing.assert_close(load_i3d(tmp_path / f"i3d{suffix}").state_dict(), state, rtol=0, atol=0)
    renamed = {name.replace("Mixed_5c", "Mixed_5d"): value for name, value in state.items()}
    write(renamed, tmp_path / f"renamed{suffix}")
    with pytest.raises(ValueError, match="not the Kinetics-400 I3D weights .*Mixed_5c"):
        load_i3d(tmp_path / f"renamed{suffix}")


def test_absent_weights_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="absent.pt: there is no such file"):
        load_i3d(tmp_path / "absent.pt")
