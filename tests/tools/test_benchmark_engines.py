"""The benchmark of engines, on the smallest case."""

import json
from pathlib import Path

import pytest

from tools.benchmark import main


@pytest.mark.slow
def test_engines_train_the_same_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not ZeRO-3, which takes longer than all of these."""
    arguments = ["engines", "--engines", "single", "ddp", "zero2", "--frames", "1", "--engine-rounds", "1"]
    assert main([*arguments, "--engine-steps", "2", "--json", str(tmp_path / "numbers.json")]) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())["engines"]
    groups = {kind: rounds[0] for kind, rounds in numbers["fp32"].items()}
    assert {kind: len(group) for kind, group in groups.items()} == {"single": 1, "ddp": 2, "zero2": 2}
    expected = groups["single"][0]["losses"]
    assert len(set(expected)) == len(expected) == 4, "every step has batches of its own"
    for group in groups.values():
        for found in group:
            assert found["losses"] == pytest.approx(expected, rel=1e-5)
            assert all(seconds > 0 for seconds in found["seconds"])
            assert found["peak_bytes"] > found["optimizer_bytes"] > 10**6
    whole = groups["ddp"][0]["optimizer_bytes"]
    assert groups["single"][0]["optimizer_bytes"] == whole
    assert groups["zero2"][0]["optimizer_bytes"] == pytest.approx(whole / 2, rel=0.01)
    text = capsys.readouterr().out
    assert "| engine=ddp " in text
    assert "1.00 (1.00 to 1.00)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engines", "single", "zero1"), "--engines: got single, zero1; ddp is what the others are compared with"),
        (("--device", "cuda", "--processes", "99"), "error: --"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engines", *arguments]) == 2
    assert message in capsys.readouterr().err
