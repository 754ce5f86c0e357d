"""The benchmark of epipolar attention measures both variants, on a small layer, and how they grow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tools import benchmark
from tools.attention_cost import DENSE, OURS, Cost, Layer
from tools.benchmark_attention import finest_level, measure_attention
from tools.benchmark_growth import draw, exponent
from tools.machine_ceilings import Ceilings


@pytest.mark.slow
def test_both_variants_are_measured_side_by_side() -> None:
    report = measure_attention([finest_level("cpu", 5, 128, 128)], rounds=1)
    dense, ours = report.tables[0].rows
    assert (dense[0], ours[0]) == (DENSE, OURS["cpu"])
    assert dense[4] == "1.00 (1.00 to 1.00)"
    rounds = report.numbers["layers"][0]["rounds"]
    costs = [Cost(**cost) for variant in rounds.values() for cost in variant]
    assert all(cost.peak >= cost.forward_peak > 0 and cost.backward_seconds > 0 for cost in costs)
    assert costs[1].multiplied_pairs < costs[0].multiplied_pairs == (5 * 256) ** 2


def test_exponents_and_the_plot() -> None:
    assert exponent([10, 20, 40], [3, 12, 48]) == pytest.approx(2)
    layers = [finest_level("cpu", frames, 64, 64) for frames in (2, 4)]
    costs = [{DENSE: [cost(layer, 2)], OURS["cpu"]: [cost(layer, 1)]} for layer in layers]
    assert draw({"frames": (layers, costs)}).startswith(b"\x89PNG")


def test_a_layer_counts_its_operations_and_bytes() -> None:
    layer = finest_level("cpu", 16, 256, 256)
    assert layer.grid.tokens == 16_384
    assert layer.operations(1) == 14 * 320
    assert layer.fewest_bytes == 12 * 20 * 2**20
    assert Ceilings(operations=100, bytes=10, what="").floor(200, 30) == 3


def test_a_page_holds_no_path_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is in it, what it names is not; and the picture lies beside it."""
    monkeypatch.setattr(benchmark, "PAGES", tmp_path / "pages")
    found = benchmark.Report(name="growth", tables=[], numbers={}, figures={"Growth": b"png"})
    monkeypatch.setitem(benchmark.MEASURE, "growth", lambda options: iter([found]))
    file = tmp_path / "found.json"
    arguments = ["growth", "--json", str(file), f"--folder={tmp_path}", "--rounds", "1", "--page"]
    assert benchmark.main(arguments) == 0
    page = next((tmp_path / "pages").glob("*.md"))
    text = page.read_text()
    assert "python -m tools.benchmark growth --json ... --folder ... --rounds 1 --page" in text
    assert str(tmp_path) not in text
    picture = f"{page.stem}-growth.png"
    assert f"![Growth]({picture})" in text
    assert (page.parent / picture).read_bytes() == b"png"
    assert json.loads(file.read_text())["growth"]["benchmark"] == "growth"
    stored = json.loads(page.with_suffix(".json").read_text())["growth"]
    assert json.loads(file.read_text())["growth"].items() <= stored.items()


def cost(layer: Layer, power: int) -> Cost:
    numbers = dict.fromkeys((field.name for field in dataclasses.fields(Cost)), 0)
    return Cost(**numbers | {"forward_seconds": layer.grid.tokens**power, "peak": layer.grid.tokens**power})
