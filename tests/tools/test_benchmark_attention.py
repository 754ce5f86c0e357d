"""The benchmark of epipolar attention measures both variants, on a small layer."""

from __future__ import annotations

import json

import pytest
import torch

from tools.benchmark_attention import main


@pytest.mark.slow
def test_both_variants_are_measured_side_by_side(tmp_path, capsys):
    file = tmp_path / "rounds.json"
    assert main(["--frames", "5", "--size", "128", "128", "--heads", "1", "--rounds", "1", "--json", str(file)]) == 0
    dense, bands = capsys.readouterr().out.splitlines()[2:]
    assert dense.split()[-2:] == ["x1.00", "x1.000"]
    assert bands.startswith("bands sdpa")
    rounds = json.loads(file.read_text())["rounds"]
    assert all(cost["peak_mib"] > 0 and cost["backward_seconds"] > 0 for costs in rounds.values() for cost in costs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(capsys):
    assert main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
