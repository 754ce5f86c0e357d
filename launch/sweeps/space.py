"""The search space: which keys of the training config take which values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cami2v.signature import suggestion
from launch.compose import quote

Parameters = dict[str, Any]
"""One value per key."""
Space = dict[str, BaseDistribution]

SET_BY_THE_SWEEP = ("name", "resume", "paths", "paths.runs", "cluster")
"""What decides where a trial lies and how it is started."""
_RANGE = ("low", "high", "log", "step")


def read_space(node: Mapping[str, Any]) -> Space:
    """Read `sweep.space`: a list is a choice, {low, high, log, step} a range, of whole numbers if both ends are.

    Keys may be written with dots or nested. Raises ValueError with the full key for anything else.
    """
    space = dict(_leaves(node, ""))
    if not space:
        raise ValueError(
            "sweep.space: empty; choose a preset (sweep=<name>), give a file (sweep=<file.yaml>), or write "
            "+sweep.space.<key>=[<value>,...]"
        )
    for key in space:
        if key in SET_BY_THE_SWEEP:
            raise ValueError(f"sweep.space.{key}: is set by the sweep for every trial, remove it")
    return space


def _leaves(node: Mapping[str, Any], key: str) -> Iterator[tuple[str, BaseDistribution]]:
    for name, value in node.items():
        full = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and not ({"low", "high"} & value.keys()):
            yield from _leaves(value, full)
        else:
            yield full, _distribution(value, f"sweep.space.{full}")


def _distribution(value: Any, key: str) -> BaseDistribution:
    if isinstance(value, list) and value:
        choices = [_choice(item, f"{key}[{index}]") for index, item in enumerate(value)]
        if len(set(map(repr, choices))) < len(choices):
            raise ValueError(f"{key}: got {value!r}, where a value is listed twice")
        return CategoricalDistribution(choices)
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: got {value!r}, expected a list of values or a range {{low: 1.0e-5, high: 1.0e-3}}")
    for name, number in value.items():
        if name not in _RANGE:
            raise ValueError(f"{key}.{name}: no such key{suggestion(name, _RANGE)} (allowed: {', '.join(_RANGE)})")
        allowed = bool if name == "log" else int | float | None if name == "step" else int | float
        if not isinstance(number, allowed) or isinstance(number, bool) != (name == "log"):
            raise ValueError(
                f"{key}.{name}: got {number!r}, expected {'true or false' if name == 'log' else 'a number'}"
            )
    for name in ("low", "high"):
        if name not in value:
            raise ValueError(f"{key}.{name}: required for a range and not set")
    low, high, log, step = value["low"], value["high"], value.get("log", False), value.get("step")
    try:
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise ValueError(f"{key}: got {dict(value)!r}, which is no range: {error}") from error


def _choice(item: Any, key: str) -> str | int | float | bool | None:
    if isinstance(item, list):
        return json.dumps(item, separators=(",", ":"))
    if item is None or isinstance(item, str | int | float | bool):
        return item
    raise ValueError(f"{key}: got {item!r}, expected a text, a number, true, false, null or a list of them")


def grid(space: Space) -> list[Parameters]:
    """List every combination, the last key changing fastest. Raises ValueError for a range without steps."""
    values = [list(_grid_values(key, distribution)) for key, distribution in space.items()]
    return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]


def _grid_values(key: str, distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
        return [distribution.low + index * distribution.step for index in range(count)]
    raise ValueError(
        f"sweep.space.{key}: a grid needs values: write a list, give the range a step, or set sweep.sampler=random"
    )


def probes(space: Space) -> Iterator[Parameters]:
    """Yield parameters in which every choice and both ends of every range occur."""
    ends = {key: _ends(distribution) for key, distribution in space.items()}
    first = {key: values[0] for key, values in ends.items()}
    yield first
    for key, values in ends.items():
        for value in values[1:]:
            yield {**first, key: value}


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def overrides(parameters: Parameters) -> list[str]:
    """Write parameters as the command line takes them."""
    return [f"{key}={text(value)}" for key, value in parameters.items()]


def text(value: Any) -> str:
    """Write one value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return value if value.startswith("[") else quote(value)
    return repr(value)


def describe(distribution: BaseDistribution) -> str:
    """Say what values a key takes."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(text(choice) for choice in distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = "" if distribution.step in (None, 1) else f", steps of {distribution.step}"
    return f"{distribution.low} to {distribution.high}{', logarithmic' if distribution.log else ''}{step}"
