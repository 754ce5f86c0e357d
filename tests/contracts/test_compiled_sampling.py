"""A compiled denoiser samples what the eager one does, and is compiled once for all clips of a shape."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

METHODS = ["none", "motionctrl", "cameractrl", "cami2v"]


def sampled(*how: str) -> dict[str, dict[str, float]]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.contracts.compiled_sampling", *how, *METHODS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found: dict[str, dict[str, float]] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_sampling_with_a_compiled_denoiser() -> None:
    """Traced and run as it is; what inductor makes of it is in docs/speed.md."""
    for found in sampled().values():
        assert found["apart"] <= 1e-5
        assert (found["graphs of clip 0"], found["graphs of clip 1"]) == (1, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_sampling_with_cuda_graphs(mode: str) -> None:
    """Not run so far: no machine of ours had a GPU."""
    for found in sampled("--backend", "inductor", "--mode", mode, "--device", "cuda").values():
        assert found["apart"] <= 1e-3
