"""The benchmark measures what it says, on the smallest case."""

from __future__ import annotations

import pytest
import torch

from tools.benchmark import main, orbit_batch, time_steps


@pytest.mark.slow
def test_every_variant_is_timed_against_the_bare_backbone():
    rows = time_steps("tiny", torch.device("cpu"), frames=2, rounds=1)
    assert [row.variant.split(",")[0] for row in rows] == ["bare backbone", "CamI2V", "CamI2V"]
    assert rows[0].ratio_to_bare == 1.0
    assert all(row.median_seconds > 0 and row.peak_gib is None for row in rows)


def test_the_clip_moves_and_is_always_the_same():
    batch, again = orbit_batch(4, (16, 32)), orbit_batch(4, (16, 32))
    assert batch.video.shape == (1, 3, 4, 16, 32)
    assert torch.equal(batch.video, again.video)
    translation = batch.cameras.world_to_camera[0, :, :, 3]
    assert torch.all(translation[1:].norm(dim=1) > translation[:-1].norm(dim=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(capsys):
    assert main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
