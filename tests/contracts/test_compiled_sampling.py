"""A compiled denoiser samples what the eager one does, and is compiled once for all clips of a shape."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

METHODS = ["none", "motionctrl", "cameractrl", "cami2v"]


@pytest.mark.slow
def test_sampling_with_a_compiled_denoiser() -> None:
    """Traced and run as it is; what inductor makes of it is in docs/speed.md."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.contracts.compiled_sampling", *METHODS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for found in json.loads(run.stdout).values():
        assert found["apart"] <= 1e-5
        assert (found["graphs of clip 0"], found["graphs of clip 1"]) == (1, 0)
