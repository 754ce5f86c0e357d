"""What measurements cost is told by measure and stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from cami2v.evaluation.folder import EvaluationFolder, write_json
from cami2v.evaluation.stopwatch import stopwatch, timed
from tools.evaluation_cost import main


def test_a_row_per_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = EvaluationFolder(tmp_path)
    for number, total in enumerate((5.0, 7.0)):
        write_json(
            folder.measurement("poses", "ground_truth", f"{number}"), {"seconds": {"total": total, "features": 4}}
        )
    write_json(folder.measurement("poses", "generated", "crashed"), {"clip_id": "crashed"})
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| poses | 2 | 10.00 | 6.00 | features 4.00 s |"
    assert main([str(tmp_path / "elsewhere")]) == 2
    assert "no measurements that say what they cost" in capsys.readouterr().err


def test_stages_add_up_within_a_measurement_only() -> None:
    with timed("matching"):
        pass
    with stopwatch() as outer, stopwatch() as spent:
        for _ in range(2):
            with timed("matching"):
                sum(range(200_000))
    assert set(spent) == {"matching", "total"}
    assert 0 < spent["matching"] <= spent["total"]
    assert set(outer) == {"total"}
