"""A denoiser is one graph for torch.compile, the same one for every clip."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

TRACED = ("cami2v, flex", "training")
"""Those with most to trace; the others only by hand, for their time."""


@pytest.mark.slow
def test_one_graph_without_breaks_for_all_clips() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.contracts.compiled_denoiser", *TRACED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == dict.fromkeys(TRACED, 1)
