"""The trainer's benchmark, on the smallest case."""

import json
from pathlib import Path

import pytest

from tests.cami2v.training.conftest import one_process
from tools.benchmark import main
from tools.benchmark_trainer import SAVES

__all__ = ["one_process"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
def test_the_trainer_is_timed_beside_a_bare_loop_and_checkpoints_and_a_resume_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["trainer", "--frames", "2", "--rounds", "2", "--json", str(tmp_path / "numbers.json")]
    assert main(arguments) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())["trainer"]
    for name in ("bare", "trainer", "bare_beside_norms", "trainer_with_norms"):
        assert len(numbers[name]) == 2
        assert all(wall > 0 and cpu > 0 for wall, cpu in numbers[name])
    # Not a bound to boast of: steps of milliseconds, on a machine that may be busy.
    ratios = [mine[1] / bare[1] for mine, bare in zip(numbers["trainer"], numbers["bare"], strict=True)]
    assert min(ratios) < 1.5
    assert len(numbers["saved"]) == len(numbers["handed_over"]) == SAVES
    assert numbers["checkpoint_bytes"] > 10**6
    assert numbers["resume"].keys() >= {"build the trainer and load it", "first step"}
    text = capsys.readouterr().out
    assert "| trainer, a row of metrics per step" in text
    assert "| trainer.background_checkpoints=true" in text
