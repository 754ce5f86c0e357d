"""Epipolar attention with the mask written out and with described bands, side by side, and how far from the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch

from tools.attention_cost import DENSE, Cost, Layer, compare
from tools.benchmark_report import Report, Table, machine
from tools.machine_ceilings import Ceilings, measure_ceilings
from tools.rounds import Spread


def finest_level(device: str, frames: int, height: int, width: int) -> Layer:
    """Describe the level at the full latent resolution of the published backbones."""
    return Layer(
        frames=frames, height=height, width=width, downsample=8, num_heads=5, head_width=64, register_tokens=4,
        device=device,
    )  # fmt: skip


def measure_attention(layers: Sequence[Layer], rounds: int) -> Report:
    """Compare the variants on every layer."""
    device = torch.device(layers[0].device)
    ceilings = measure_ceilings(device, layers[0].dtype)
    tables, numbers = [], []
    for layer in layers:
        costs = compare(layer, rounds)
        tables += [_cost_table(layer, costs), _roofline(layer, costs, ceilings)]
        rows = {variant: [asdict(cost) for cost in measured] for variant, measured in costs.items()}
        numbers.append({"layer": asdict(layer), "rounds": rows})
    return Report(
        name="attention",
        tables=tables,
        numbers={"layers": numbers, "ceilings": asdict(ceilings)},
        machine=machine(device.type),
    )


def name_of(layer: Layer) -> str:
    """Describe a layer in a few words."""
    grid = layer.grid
    return (
        f"{layer.height} x {layer.width}: {layer.frames} x {grid.rows} x {grid.columns} = {grid.tokens} tokens, "
        f"{layer.num_heads} heads of {layer.head_width}"
    )


NUMBERS: dict[str, Callable[[Cost], float]] = {
    "prepare s": lambda cost: cost.prepare_seconds,
    "forward s": lambda cost: cost.forward_seconds,
    "backward s": lambda cost: cost.backward_seconds,
    "both passes s": lambda cost: cost.seconds,
    "forward peak": lambda cost: cost.forward_peak,
    "forward beyond": lambda cost: cost.forward_peak - cost.output,
    "peak": lambda cost: cost.peak,
    "beyond": lambda cost: cost.peak - cost.gradients,
}
_SECONDS, _PEAKS = ("prepare s", "forward s", "backward s"), ("forward peak", "forward beyond", "peak", "beyond")


def _cost_table(layer: Layer, costs: dict[str, list[Cost]]) -> Table:
    rows = [
        [
            variant,
            *(f"{_spread(measured, each).median:.2f}" for each in _SECONDS),
            _ratio(measured, costs[DENSE], "both passes s").text(2),
            *(f"{_spread(measured, each).median:.0f}" for each in _PEAKS),
            *(f"1/{1 / _ratio(measured, costs[DENSE], each).median:.1f}" for each in _PEAKS[::2]),
        ]
        for variant, measured in costs.items()
    ]
    some = costs[DENSE][0]
    notes = [
        f"One layer, batch 1, {layer.register_tokens} register tokens, {str(layer.dtype).removeprefix('torch.')}, "
        f"{len(costs[DENSE])} rounds, a fresh process for every number; `prepare` is once per clip and level and not "
        "in `times dense`.",
        f"Peaks in MiB above the inputs. Results ({some.output:.0f} MiB after the forward pass) and gradients "
        f"({some.gradients:.0f} MiB with the result and its own gradient) are in `peak`, for every implementation; "
        f"`beyond` is without them; seconds{' of the CPU' if layer.device == 'cpu' else ''} are medians, "
        "ratios are those of each round.",
    ]
    columns = ["variant", *_SECONDS, "times dense", *_PEAKS, *(f"{each} / dense" for each in _PEAKS[::2])]
    return Table(title=f"Epipolar attention, {name_of(layer)}", columns=columns, rows=rows, notes=notes)


def _roofline(layer: Layer, costs: dict[str, list[Cost]], ceilings: Ceilings) -> Table:
    visible = costs[DENSE][0].visible_pairs
    useful = layer.operations(visible)
    floor = ceilings.floor(useful, layer.fewest_bytes)
    rows = []
    for variant, measured in costs.items():
        seconds = _spread(measured, "both passes s").median
        pairs = measured[0].multiplied_pairs
        rows.append(
            [
                variant,
                f"{pairs / layer.grid.tokens**2:.1%}",
                f"{pairs / visible:.2f}",
                f"{layer.operations(pairs) / 1e9:.0f}",
                f"{seconds / floor:.1f}",
                f"{layer.operations(pairs) / seconds / ceilings.operations:.1%}",
                f"{useful / seconds / ceilings.operations:.1%}",
            ]
        )
    notes = [
        f"Floor: {useful / 1e9:.1f} GFLOP of the {visible / layer.grid.tokens**2:.1%} pairs within the bands, "
        f"{layer.fewest_bytes / 1e6:.0f} MB read and written once, forward and backward: {1e3 * floor:.3g} ms.",
        f"Ceilings, measured before: {ceilings.what}.",
    ]
    columns = [
        "variant", "pairs multiplied", "per visible pair", "GFLOP", "times the floor", "of the product's rate",
        "the same, useful",
    ]  # fmt: skip
    return Table(title=f"Distance from the floor, {name_of(layer)}", columns=columns, rows=rows, notes=notes)


def _spread(costs: Sequence[Cost], number: str) -> Spread:
    return Spread.of([NUMBERS[number](cost) for cost in costs])


def _ratio(mine: Sequence[Cost], theirs: Sequence[Cost], number: str) -> Spread:
    return Spread.of([NUMBERS[number](a) / NUMBERS[number](b) for a, b in zip(mine, theirs, strict=True)])
