"""Attention over bundles as operators of PyTorch, which torch.compile takes as they are: they launch the kernels.

Bundles are the tensors of a `device_bundles.Met`, a grid is its columns and the pixels of a cell.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any, no_type_check

import torch
from torch import Tensor

FEWEST = 16
"""Rows or channels that a product on tensor cores takes at least."""

PART = 256
"""Queries over which one program sums the gradients of register tokens."""


def padded(size: int) -> int:
    """Return the rows or channels that are multiplied for so many."""
    return max(FEWEST, 1 << (size - 1).bit_length())


def launch_settings(dtype: torch.dtype, width: int) -> dict[str, int]:
    """Return how many keys a program takes at a time, and its size. Guessed: no GPU has run it so far."""
    if dtype == torch.float32:
        return {"BLOCK": 16 if width > 64 else 32, "num_warps": 8, "num_stages": 1}
    return {"BLOCK": 32, "num_warps": 4, "num_stages": 1 if width > 64 else 2}


@torch.library.custom_op("cami2v::attend_bundles", mutates_args=())
@no_type_check  # the operator has its own schema
def attend_bundles(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lines: Tensor,
    key_frames: Tensor,
    met_by_queries: list[Tensor],
    met_by_keys: list[Tensor],
    grid: list[int],
    half_width: float,
    itself: bool,
    registers: int,
) -> tuple[Tensor, Tensor]:
    """Return the output and, as "clips tokens heads", the logarithm to base 2 of the softmax's denominator.

    `met_by_keys` may be empty where no gradient is needed.
    """
    output, logsumexp = _outputs(query, value)
    clips, frames, slots, _, cells = lines.shape
    sums = torch.empty_like(logsumexp), torch.empty_like(logsumexp), _sums(output)
    launch = _Launch("attend", query, value, met_by_queries, clips * frames)
    for slot in range(slots):
        launch(
            query, key, value, output, logsumexp, sums, lines, launch.met, key_frames,
            *(x.stride()[:3] for x in (query, key, value)), (query.shape[1], frames, slots),
            _grid(cells, grid, half_width), launch.widths, registers, launch.scale * math.log2(math.e), slot,
            FIRST=slot == 0, LAST=slot == slots - 1, ITSELF=itself,
        )  # fmt: skip
    return output, logsumexp


@attend_bundles.register_fake
@no_type_check
def _(query, key, value, *_others):
    return _outputs(query, value)


@torch.library.custom_op("cami2v::attend_bundles_backward", mutates_args=())
@no_type_check
def attend_bundles_backward(
    given: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    logsumexp: Tensor,
    lines: Tensor,
    key_frames: Tensor,
    met_by_queries: list[Tensor],
    met_by_keys: list[Tensor],
    grid: list[int],
    half_width: float,
    itself: bool,
    registers: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    gradients = _gradients(query, key, value)
    clips, frames, slots, _, cells = lines.shape
    given = given if given.stride(-1) == 1 else given.contiguous()
    alignment, inputs = torch.empty_like(logsumexp), (query, key, value, given)
    strides, size = tuple(x.stride()[:3] for x in inputs), (query.shape[1], frames, slots)
    launch = _Launch("queries_gradient", query, value, met_by_queries, clips * frames)
    common = _grid(cells, grid, half_width), launch.widths, registers, launch.scale * math.log2(math.e), launch.scale
    so_far = _sums(gradients[0])
    for slot in range(slots):
        launch(
            query, key, value, output, given, logsumexp, alignment, gradients[0], so_far, lines, launch.met, key_frames,
            *strides, size, *common, slot, FIRST=slot == 0, LAST=slot == slots - 1, ITSELF=itself,
        )  # fmt: skip
    del so_far
    launch = _Launch("keys_gradient", query, value, met_by_keys, clips * slots)
    so_far = _sums(gradients[1]), _sums(gradients[2])
    for frame in range(frames):
        launch(
            *inputs, logsumexp, alignment, *gradients[1:], so_far, lines, launch.met, key_frames, *strides, size,
            *common, frame, FIRST=frame == 0, LAST=frame == frames - 1, ITSELF=itself,
        )  # fmt: skip
    if registers:
        for gradient, part in zip(gradients[1:], _of_registers(inputs, logsumexp, alignment, registers), strict=True):
            gradient[:, :, :registers] = part
    return gradients


@attend_bundles_backward.register_fake
@no_type_check
def _(given, query, key, value, *_others):
    return _gradients(query, key, value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, met_by_queries, met_by_keys, grid, half_width, itself, registers = inputs
    ctx.save_for_backward(*tensors[:3], *output, *tensors[3:], *met_by_queries, *met_by_keys)
    ctx.numbers = grid, half_width, itself, registers
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, given: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors
    gradients: tuple[Tensor | None, ...] = (None, None, None)
    if given is not None:
        gradients = attend_bundles_backward(given, *tensors[:7], tensors[7:10], tensors[10:], *ctx.numbers)
    of_lists = [[None] * len(tensors[7:10]), [None] * len(tensors[10:])]
    return (*gradients, None, None, *of_lists, *(None,) * 4)


attend_bundles.register_autograd(_differentiate, setup_context=_keep)


class _Launch:
    """One kernel with what all its launches share: a program for every bundle and head."""

    def __init__(self, name: str, query: Tensor, value: Tensor, met: list[Tensor], frames: int) -> None:
        order, lists, counts = met
        self.met = order, lists, counts, counts.shape[-1], lists.shape[-1]
        self.widths = query.shape[-1], value.shape[-1]
        self.scale = query.shape[-1] ** -0.5
        bundle = order.shape[-1] // counts.shape[-1]
        self._kernel = getattr(_kernels(), name)[frames * counts.shape[-1], query.shape[1]]
        self._settings = _settings(query, value) | {"BUNDLE": bundle}

    def __call__(self, *arguments: Any, **constants: Any) -> None:
        with torch.cuda.device_of(self.met[0]):  # Triton launches on the current device
            self._kernel(*arguments, **constants, **self._settings)


@functools.cache
def _kernels() -> Any:
    # Imported at the first launch: not every machine has Triton.
    return importlib.import_module("cami2v.attention.triton_kernels")


def _settings(query: Tensor, value: Tensor) -> dict[str, Any]:
    widths = {"WIDTH": padded(query.shape[-1]), "VALUE_WIDTH": padded(value.shape[-1])}
    return {**launch_settings(query.dtype, max(widths.values())), **widths, "enable_fp_fusion": False}


def _of_registers(
    inputs: tuple[Tensor, ...], logsumexp: Tensor, alignment: Tensor, registers: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the leading keys and values, which every query sees."""
    query, _, value, _ = inputs
    clips, heads, tokens, width = query.shape
    parts, scale = -(-tokens // PART), width**-0.5
    sums = [
        torch.empty(clips, parts, registers, heads, x.shape[-1], dtype=torch.float32, device=x.device)
        for x in (query, value)
    ]
    with torch.cuda.device_of(query):
        _kernels().registers_gradient[clips * parts, heads](
            *inputs, logsumexp, alignment, *sums, *(x.stride()[:3] for x in inputs), heads, tokens,
            (width, value.shape[-1]), registers, scale * math.log2(math.e), scale, parts, PART=PART,
            REGISTERS=padded(registers), **_settings(query, value),
        )  # fmt: skip
    of_key, of_value = (x.sum(dim=1).transpose(1, 2) for x in sums)
    return of_key, of_value


def _outputs(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    clips, heads, tokens, _ = query.shape
    # Laid out as the caller wants it, heads beside channels: no copy then.
    output = query.new_empty(clips, tokens, heads, value.shape[-1]).transpose(1, 2)
    return output, query.new_empty(clips, tokens, heads, dtype=torch.float32)


def _gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    of_query, of_key, of_value = (
        x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2) for x in (query, key, value)
    )
    return of_query, of_key, of_value


def _sums(result: Tensor) -> Tensor:
    """Return where the sums of a result wait between launches: in the result, if it is exact enough."""
    return result if result.dtype == torch.float32 else torch.empty_like(result, dtype=torch.float32)


def _grid(cells: int, grid: list[int], half_width: float) -> tuple[int | float, ...]:
    columns, downsample = grid
    return cells, columns, downsample, downsample / 2 - 0.5, half_width
