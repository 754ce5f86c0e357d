"""How time and memory of epipolar attention grow with frames and with resolution: ours against the dense mask."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tools.attention_cost import DENSE, OURS, Cost, Layer, compare
from tools.benchmark_report import Report, Table, machine
from tools.rounds import Spread

SIZES = {"cpu": (128, 192, 256, 320), "cuda": (128, 256, 320, 384)}
"""Sides of square images, at half the frames."""
NUMBERS: Mapping[str, Callable[[Cost], float]] = {
    "seconds": lambda cost: cost.all_seconds,
    "peak MiB": lambda cost: cost.peak,
}
COLOURS = {DENSE: "#c2500a", **dict.fromkeys(OURS.values(), "#0969da")}


def measure_growth(layer: Layer, rounds: int) -> Report:
    """Measure clips of growing length at the size of `layer`, and growing images at half its frames."""
    frames = [replace(layer, frames=math.ceil(layer.frames * part / 4)) for part in range(1, 5)]
    half = replace(layer, frames=max(layer.frames // 2, 1))
    sizes = [replace(half, height=side, width=side) for side in SIZES[layer.device]]
    series = {
        f"frames, at {layer.height} x {layer.width}": frames,
        f"image side, at {half.frames} frames": sizes,
    }
    found = {name: [compare(each, rounds) for each in layers] for name, layers in series.items()}
    rows = [
        [f"{name}: {what}", *(f"{_exponent(series[name], costs, variant, what):.2f}" for variant in costs[0])]
        for name, costs in found.items()
        for what in NUMBERS
    ]
    note = (
        "Fitted by least squares in logarithms: cost grows as (tokens) to this power. Seconds (of the CPU, on a CPU) "
        "are the preparation of a "
        f"clip and both passes of one layer; {rounds} rounds, medians; {layer.num_heads} heads of {layer.head_width}."
    )
    table = Table(
        title="Growth with the number of tokens, exponents",
        columns=["varied", *found[next(iter(found))][0]],
        rows=rows,
        notes=[note],
    )
    numbers = {
        name: [
            {"layer": asdict(each), "rounds": {variant: [asdict(c) for c in costs] for variant, costs in cost.items()}}
            for each, cost in zip(series[name], costs_of_all, strict=True)
        ]
        for name, costs_of_all in found.items()
    }
    picture = draw({name: (series[name], costs) for name, costs in found.items()})
    return Report(
        name="growth",
        tables=[table],
        numbers={"series": numbers},
        figures={"Time and memory of epipolar attention by number of tokens, ours and the dense mask": picture},
        machine=machine(layer.device),
    )


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fit costs = factor * sizes ** exponent."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def draw(series: Mapping[str, tuple[Sequence[Layer], Sequence[dict[str, list[Cost]]]]]) -> bytes:
    """Return the curves as a PNG file."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(NUMBERS), len(series), squeeze=False)
    for column, (name, (layers, costs)) in enumerate(series.items()):
        for row, (what, number) in enumerate(NUMBERS.items()):
            panel = panels[row, column]
            for variant in costs[0]:
                label = f"{variant}: tokens^{_exponent(layers, costs, variant, what):.2f}"
                values = [_medians(each[variant], number) for each in costs]
                tokens = [layer.grid.tokens for layer in layers]
                panel.loglog(tokens, values, marker="o", color=COLOURS[variant], label=label)
            panel.set(xlabel=f"tokens (growing {name})", ylabel=what)
            panel.grid(visible=True, which="both", alpha=0.2)
            panel.legend(frameon=False)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110, metadata={"Software": None})
    return written.getvalue()


def _exponent(layers: Sequence[Layer], costs: Sequence[dict[str, list[Cost]]], variant: str, what: str) -> float:
    values = [_medians(each[variant], NUMBERS[what]) for each in costs]
    return exponent([layer.grid.tokens for layer in layers], values)


def _medians(costs: Sequence[Cost], number: Callable[[Cost], float]) -> float:
    return Spread.of([number(cost) for cost in costs]).median
