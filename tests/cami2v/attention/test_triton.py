"""Our kernels in Triton without a GPU: exact by Triton's interpreter, and built for the chips they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cami2v.attention.triton_builds import SHARED_BYTES, builds


@pytest.mark.slow
def test_both_passes_are_exact_by_the_interpreter() -> None:
    checks = str(Path(__file__).with_name("interpreted_triton.py"))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", checks],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "head_width", "capability"),
    [
        (torch.bfloat16, 64, 80),
        (torch.bfloat16, 64, 90),
        (torch.float16, 64, 90),
        (torch.float32, 64, 80),
        (torch.float32, 64, 90),
        (torch.bfloat16, 40, 90),
        (torch.bfloat16, 128, 90),
        (torch.float32, 128, 80),
    ],
)
def test_every_launch_is_built_and_fits(
    dtype: torch.dtype, head_width: int, capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = builds(monkeypatch, capability, dtype, head_width)
    names = [each.kernel for each in built]
    assert names == ["list_met"] * 2 + ["attend"] * 3 + ["queries_gradient"] * 3 + ["keys_gradient"] * 3 + [
        "registers_gradient"
    ]
    for each in built:
        assert each.shared <= SHARED_BYTES[86] / (2 if head_width <= 64 else 1), "two programs, even of smaller chips"
        assert each.stack <= (32 if head_width <= 64 else 128), "some registers of a thread at most"


def test_triton_is_imported_by_no_one_who_does_not_choose_it() -> None:
    code = "import sys; import cami2v.attention.core; assert 'cami2v.attention.triton_kernels' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
