"""The benchmark of activation checkpointing, on the smallest step."""

from __future__ import annotations

import pytest

from tools.benchmark_checkpointing import CHOICES, CheckpointingCase, measure_checkpointing


@pytest.mark.slow
def test_what_is_computed_again_is_not_held() -> None:
    case = CheckpointingCase(
        backbone="tiny", camera="none", device="cpu", frames=4, size=(128, 128), rounds=1, counted=(), trained=("all",)
    )
    report = measure_checkpointing(case)
    (table,) = report.tables
    assert [row[0] for row in table.rows] == [f"all: {choice}" for choice in CHOICES]
    assert table.rows[0][2] == "1.00 (1.00 to 1.00)"
    false, selective, true = (report.numbers["peaks"][f"all {choice}"] for choice in CHOICES)
    assert true < 0.9 * selective < 0.9 * false
    assert all(seconds > 0 for took in report.numbers["seconds"].values() for seconds in took)
