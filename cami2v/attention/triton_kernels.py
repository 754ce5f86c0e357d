"""Kernels of epipolar attention over bundles, in Triton: who meets whom, and softmax over it, forward and backward.

A program owns a bundle of cells and one head; it walks the list of the cells that the bundle meets in one frame, a
block at a time, gathering their rows. What it sums over all frames waits in fp32 in device memory between launches, one
launch per frame: the order of cells in bundles differs from frame to frame. `FIRST` and `LAST` launches begin and end
such sums. Nothing is added atomically, so results do not change from run to run.

Exponents have base 2: `scale` and the stored logarithms contain log2(e). A pair is tested with the arithmetic of the
mask that is written out: compile with `enable_fp_fusion=False`, or the two may differ in the last bit.
"""

from __future__ import annotations

from typing import no_type_check

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

HIDDEN = tl.constexpr(float("-inf"))
LOWEST = tl.constexpr(-3.0e38)
"""The maximum of a query that has met no key: finite, so that no difference is undefined."""


@triton.jit
@no_type_check
def lines_of(lines, pair, cell, exists, cells):
    """Load the lines of some query cells in a key frame: a x + b y + c = 0."""
    first = lines + pair * 3 * cells + cell
    a = tl.load(first, mask=exists, other=0.0)
    b = tl.load(first + cells, mask=exists, other=0.0)
    c = tl.load(first + 2 * cells, mask=exists, other=0.0)
    return a, b, c


@triton.jit
@no_type_check
def sees(a, b, c, query_cell, key_cell, grid, itself, ITSELF: tl.constexpr):
    """Tell which pairs may attend. The arguments are broadcast; `itself`: of its own frame a query sees only itself."""
    _, columns, downsample, offset, half_width = grid
    x = (key_cell % columns).to(tl.float32) * downsample + offset
    y = (key_cell // columns).to(tl.float32) * downsample + offset
    seen = tl.abs(a * x + (b * y + c)) < half_width
    if ITSELF:
        seen = (seen & (itself == 0)) | ((query_cell == key_cell) & (itself != 0))
    return seen


@triton.jit
@no_type_check
def listed(cell_list, met, start, capacity, cells, BLOCK: tl.constexpr):
    """Load a block of a bundle's list, and whether there is a cell at each place; too long a list means every cell."""
    place = start + tl.arange(0, BLOCK)
    complete = met <= capacity
    mask = (place >= 0) & (place < tl.where(complete, met, 0))
    cell = tl.load(cell_list + place, mask=mask, other=0).to(tl.int32)
    return tl.where(complete, cell, place), place < tl.where(complete, met, cells)


@triton.jit
@no_type_check
def keys_met(
    cell_list, met, start, leading, capacity, cells, frame_key, registers, FIRST: tl.constexpr, BLOCK: tl.constexpr
):
    """Load a block of a bundle's keys: cell, key, whether there is one, whether it is a register token.

    Those come before the frame's own (`start` is negative), in the first launch only.
    """
    cell, there = listed(cell_list, met, start, capacity, cells, BLOCK)
    key = frame_key + cell
    register = start < 0
    if FIRST:
        place = start + leading + tl.arange(0, BLOCK)
        key = tl.where(register, place, key)
        there = there & ((start >= 0) | (place < registers))
    return cell, key, there, register


@triton.jit
@no_type_check
def of_head(tensor, strides, clip, head):
    """Return where the tokens of a clip and head begin."""
    return tensor + clip * strides[0] + head * strides[1]


@triton.jit
@no_type_check
def rows(tensor, token, exists, stride, width, WIDTH: tl.constexpr):
    """Gather rows; zeros where there is none and behind `width`."""
    channel = tl.arange(0, WIDTH)
    mask = exists[:, None] & (channel < width)[None, :]
    return tl.load(tensor + token[:, None].to(tl.int64) * stride + channel[None, :], mask=mask, other=0.0)


@triton.jit
@no_type_check
def store_rows(tensor, values, token, exists, stride, width, WIDTH: tl.constexpr):
    """Scatter rows."""
    channel = tl.arange(0, WIDTH)
    mask = exists[:, None] & (channel < width)[None, :]
    tl.store(tensor + token[:, None].to(tl.int64) * stride + channel[None, :], values, mask=mask)


@triton.jit
@no_type_check
def list_met(
    lines, met, key_frames, size, grid, ITSELF: tl.constexpr, OF_KEYS: tl.constexpr, BUNDLE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """List the cells that a bundle meets, ascending, and count them; grid: (frame pairs x bundles).

    A bundle is of query cells and meets key cells or, with `OF_KEYS`, the reverse. What is beyond `capacity` is counted
    and not listed.
    """
    order, lists, counts, bundles, capacity = met
    _, frames, slots = size
    cells = grid[0]
    number = tl.program_id(0).to(tl.int64)
    pair = number // bundles
    itself = (tl.load(key_frames + pair // (frames * slots) * slots + pair % slots) == pair // slots % frames).to(
        tl.int32
    )
    mine = tl.load(order + number * BUNDLE + tl.arange(0, BUNDLE)).to(tl.int32)
    exists = mine < cells
    a, b, c = lines_of(lines, pair, mine, exists, cells)
    count = 0
    for start in range(0, cells, BLOCK):
        other = start + tl.arange(0, BLOCK)
        if OF_KEYS:
            u, v, w = lines_of(lines, pair, other, other < cells, cells)
            seen = sees(u[None, :], v[None, :], w[None, :], other[None, :], mine[:, None], grid, itself, ITSELF)
        else:
            seen = sees(a[:, None], b[:, None], c[:, None], mine[:, None], other[None, :], grid, itself, ITSELF)
        found = tl.max((seen & exists[:, None] & (other < cells)[None, :]).to(tl.int32), axis=0)
        place = count + tl.cumsum(found, 0) - found
        to = lists + number * capacity + place
        tl.store(to, other.to(lists.dtype.element_ty), mask=(found != 0) & (place < capacity))
        count += tl.sum(found, axis=0)
    tl.store(counts + number, count)


@triton.jit
@no_type_check
def attend_block(query, key, value, seen, scale, highest, total, summed):
    """Add a block of keys to a running softmax."""
    score = tl.dot(query, tl.trans(key), input_precision="tf32x3") * scale
    score = tl.where(seen, score, HIDDEN)
    now = tl.maximum(highest, tl.max(score, axis=1))
    weight = tl.exp2(score - now[:, None])
    kept = tl.exp2(highest - now)
    total = total * kept + tl.sum(weight, axis=1)
    summed = summed * kept[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="tf32x3")
    return now, total, summed


@triton.jit(do_not_specialize=["slot"])
@no_type_check
def attend(
    query, key, value, output, logsumexp, so_far, lines, met, key_frames, query_strides, key_strides, value_strides,
    size, grid, widths, registers, scale, slot, FIRST: tl.constexpr, LAST: tl.constexpr, ITSELF: tl.constexpr,
    BUNDLE: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
):  # fmt: skip
    """Let all queries meet the keys of one slot; grid: (clips x frames x bundles, heads).

    Sums lie as "clips tokens heads".
    """
    order, lists, counts, bundles, capacity = met
    heads, frames, slots = size
    width, value_width = widths
    cells = grid[0]
    number, head = tl.program_id(0) // bundles, tl.program_id(1)
    highest_so_far, total_so_far, summed_so_far = so_far
    bundle, clip, frame = tl.program_id(0) % bundles, (number // frames).to(tl.int64), number % frames
    pair = number.to(tl.int64) * slots + slot
    cell = tl.load(order + (pair * bundles + bundle) * BUNDLE + tl.arange(0, BUNDLE)).to(tl.int32)
    exists = cell < cells
    token = frame * cells + cell
    mine = (clip * frames * cells + token) * heads + head
    itself = (tl.load(key_frames + clip * slots + slot) == frame).to(tl.int32)
    q = rows(of_head(query, query_strides, clip, head), token, exists, query_strides[2], width, WIDTH)
    key = of_head(key, key_strides, clip, head)
    value = of_head(value, value_strides, clip, head)
    if FIRST:
        highest = tl.full([BUNDLE], LOWEST, tl.float32)
        total = tl.zeros([BUNDLE], tl.float32)
        summed = tl.zeros([BUNDLE, VALUE_WIDTH], tl.float32)
    else:
        highest = tl.load(highest_so_far + mine, mask=exists, other=0.0)
        total = tl.load(total_so_far + mine, mask=exists, other=0.0)
        summed = rows(summed_so_far, mine, exists, value_width, value_width, VALUE_WIDTH).to(tl.float32)
    a, b, c = lines_of(lines, pair, cell, exists, cells)
    count = tl.load(counts + pair * bundles + bundle)
    cell_list = lists + (pair * bundles + bundle) * capacity
    leading = (registers + BLOCK - 1) // BLOCK * BLOCK if FIRST else 0
    for start in range(-leading, tl.where(count > capacity, cells, count), BLOCK):
        other, row, there, register = keys_met(
            cell_list, count, start, leading, capacity, cells, registers + slot * cells, registers, FIRST, BLOCK
        )
        k = rows(key, row, there, key_strides[2], width, WIDTH)
        v = rows(value, row, there, value_strides[2], value_width, VALUE_WIDTH)
        seen = sees(a[:, None], b[:, None], c[:, None], cell[:, None], other[None, :], grid, itself, ITSELF)
        seen = (seen | register) & exists[:, None] & there[None, :]
        highest, total, summed = attend_block(q, k, v, seen, scale, highest, total, summed)
    if LAST:
        # A query without any key: zeros, and a weight of zero in the backward pass.
        nothing = total == 0.0
        summed = summed / tl.where(nothing, 1.0, total)[:, None]
        store_rows(output, summed.to(output.dtype.element_ty), mine, exists, value_width, value_width, VALUE_WIDTH)
        tl.store(logsumexp + mine, tl.where(nothing, float("inf"), highest + tl.log2(total)), mask=exists)
    else:
        tl.store(highest_so_far + mine, highest, mask=exists)
        tl.store(total_so_far + mine, total, mask=exists)
        store_rows(summed_so_far, summed, mine, exists, value_width, value_width, VALUE_WIDTH)


@triton.jit
@no_type_check
def of_scores(query, key, value, given, seen, logsumexp, alignment, scale):
    """Return a block's weights and the gradient of its scores (unscaled); queries are rows."""
    score = tl.where(seen, tl.dot(query, tl.trans(key), input_precision="tf32x3") * scale, HIDDEN)
    weight = tl.exp2(score - logsumexp)
    return weight, weight * (tl.dot(given, tl.trans(value), input_precision="tf32x3") - alignment)


@triton.jit(do_not_specialize=["slot"])
@no_type_check
def queries_gradient(
    query, key, value, output, given, logsumexp, alignment, gradient, so_far, lines, met, key_frames, query_strides,
    key_strides, value_strides, given_strides, size, grid, widths, registers, scale, natural_scale, slot,
    FIRST: tl.constexpr, LAST: tl.constexpr, ITSELF: tl.constexpr, BUNDLE: tl.constexpr,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
):  # fmt: skip
    """Add what the keys of one slot give to the gradient of all queries; grid as that of `attend`.

    The first launch writes `alignment`, the product of the output and its gradient `given`, summed over channels.
    """
    order, lists, counts, bundles, capacity = met
    heads, frames, slots = size
    width, value_width = widths
    cells = grid[0]
    number, head = tl.program_id(0) // bundles, tl.program_id(1)
    bundle, clip, frame = tl.program_id(0) % bundles, (number // frames).to(tl.int64), number % frames
    pair = number.to(tl.int64) * slots + slot
    cell = tl.load(order + (pair * bundles + bundle) * BUNDLE + tl.arange(0, BUNDLE)).to(tl.int32)
    exists = cell < cells
    token = frame * cells + cell
    mine = (clip * frames * cells + token) * heads + head
    itself = (tl.load(key_frames + clip * slots + slot) == frame).to(tl.int32)
    q = rows(of_head(query, query_strides, clip, head), token, exists, query_strides[2], width, WIDTH)
    given = of_head(given, given_strides, clip, head)
    upstream = rows(given, token, exists, given_strides[2], value_width, VALUE_WIDTH)
    key = of_head(key, key_strides, clip, head)
    value = of_head(value, value_strides, clip, head)
    denominator = tl.load(logsumexp + mine, mask=exists, other=0.0)[:, None]
    if FIRST:
        attended = rows(output, mine, exists, value_width, value_width, VALUE_WIDTH)
        aligned = tl.sum(attended.to(tl.float32) * upstream.to(tl.float32), axis=1)
        tl.store(alignment + mine, aligned, mask=exists)
        summed = tl.zeros([BUNDLE, WIDTH], tl.float32)
    else:
        aligned = tl.load(alignment + mine, mask=exists, other=0.0)
        summed = rows(so_far, mine, exists, width, width, WIDTH).to(tl.float32)
    a, b, c = lines_of(lines, pair, cell, exists, cells)
    count = tl.load(counts + pair * bundles + bundle)
    cell_list = lists + (pair * bundles + bundle) * capacity
    leading = (registers + BLOCK - 1) // BLOCK * BLOCK if FIRST else 0
    for start in range(-leading, tl.where(count > capacity, cells, count), BLOCK):
        other, row, there, register = keys_met(
            cell_list, count, start, leading, capacity, cells, registers + slot * cells, registers, FIRST, BLOCK
        )
        k = rows(key, row, there, key_strides[2], width, WIDTH)
        v = rows(value, row, there, value_strides[2], value_width, VALUE_WIDTH)
        seen = sees(a[:, None], b[:, None], c[:, None], cell[:, None], other[None, :], grid, itself, ITSELF)
        seen = (seen | register) & exists[:, None] & there[None, :]
        of_score = of_scores(q, k, v, upstream, seen, denominator, aligned[:, None], scale)[1]
        summed += tl.dot(of_score.to(k.dtype), k, input_precision="tf32x3")
    if LAST:
        summed = (summed * natural_scale).to(gradient.dtype.element_ty)
        store_rows(gradient, summed, mine, exists, width, width, WIDTH)
    else:
        store_rows(so_far, summed, mine, exists, width, width, WIDTH)


@triton.jit(do_not_specialize=["frame"])
@no_type_check
def keys_gradient(
    query, key, value, given, logsumexp, alignment, of_key, of_value, so_far, lines, met, key_frames, query_strides,
    key_strides, value_strides, given_strides, size, grid, widths, registers, scale, natural_scale, frame,
    FIRST: tl.constexpr, LAST: tl.constexpr, ITSELF: tl.constexpr, BUNDLE: tl.constexpr, BLOCK: tl.constexpr,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
):  # fmt: skip
    """Add what the queries of one frame give to the gradients of all keys and values but the register tokens'.

    Grid: (clips x slots x bundles, heads). Sums and gradients lie as "clips keys heads", register tokens leading.
    """
    order, lists, counts, bundles, capacity = met
    heads, frames, slots = size
    width, value_width = widths
    cells = grid[0]
    number, head = tl.program_id(0) // bundles, tl.program_id(1)
    key_so_far, value_so_far = so_far
    bundle, clip, slot = tl.program_id(0) % bundles, (number // slots).to(tl.int64), number % slots
    pair = (clip * frames + frame) * slots + slot
    cell = tl.load(order + (pair * bundles + bundle) * BUNDLE + tl.arange(0, BUNDLE)).to(tl.int32)
    exists = cell < cells
    token = registers + slot * cells + cell
    mine = (clip * (registers + slots * cells) + token) * heads + head
    itself = (tl.load(key_frames + clip * slots + slot) == frame).to(tl.int32)
    k = rows(of_head(key, key_strides, clip, head), token, exists, key_strides[2], width, WIDTH)
    value = of_head(value, value_strides, clip, head)
    v = rows(value, token, exists, value_strides[2], value_width, VALUE_WIDTH)
    query = of_head(query, query_strides, clip, head)
    given = of_head(given, given_strides, clip, head)
    if FIRST:
        k_summed = tl.zeros([BUNDLE, WIDTH], tl.float32)
        v_summed = tl.zeros([BUNDLE, VALUE_WIDTH], tl.float32)
    else:
        k_summed = rows(key_so_far, mine, exists, width, width, WIDTH).to(tl.float32)
        v_summed = rows(value_so_far, mine, exists, value_width, value_width, VALUE_WIDTH).to(tl.float32)
    count = tl.load(counts + pair * bundles + bundle)
    cell_list = lists + (pair * bundles + bundle) * capacity
    for start in range(0, tl.where(count > capacity, cells, count), BLOCK):
        other, there = listed(cell_list, count, start, capacity, cells, BLOCK)
        a, b, c = lines_of(lines, pair, other, there, cells)
        seen = sees(a[:, None], b[:, None], c[:, None], other[:, None], cell[None, :], grid, itself, ITSELF)
        q = rows(query, frame * cells + other, there, query_strides[2], width, WIDTH)
        upstream = rows(given, frame * cells + other, there, given_strides[2], value_width, VALUE_WIDTH)
        theirs = ((clip * frames + frame) * cells + other) * heads + head
        denominator = tl.load(logsumexp + theirs, mask=there, other=0.0)[:, None]
        aligned = tl.load(alignment + theirs, mask=there, other=0.0)[:, None]
        seen = seen & there[:, None] & exists[None, :]
        weight, of_score = of_scores(q, k, v, upstream, seen, denominator, aligned, scale)
        v_summed += tl.dot(tl.trans(weight.to(upstream.dtype)), upstream, input_precision="tf32x3")
        k_summed += tl.dot(tl.trans(of_score.to(q.dtype)), q, input_precision="tf32x3")
    if LAST:
        k_summed = (k_summed * natural_scale).to(of_key.dtype.element_ty)
        store_rows(of_key, k_summed, mine, exists, width, width, WIDTH)
        store_rows(
            of_value, v_summed.to(of_value.dtype.element_ty), mine, exists, value_width, value_width, VALUE_WIDTH
        )
    else:
        store_rows(key_so_far, k_summed, mine, exists, width, width, WIDTH)
        store_rows(value_so_far, v_summed, mine, exists, value_width, value_width, VALUE_WIDTH)


@triton.jit
@no_type_check
def registers_gradient(
    query, key, value, given, logsumexp, alignment, of_key, of_value, query_strides, key_strides, value_strides,
    given_strides, heads, tokens, widths, registers, scale, natural_scale, parts, PART: tl.constexpr,
    REGISTERS: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of register tokens over parts of `PART` queries; grid: (clips x parts, heads).

    They lie as "clips parts registers heads".
    """
    width, value_width = widths
    clip, part, head = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts, tl.program_id(1)
    query = of_head(query, query_strides, clip, head)
    given = of_head(given, given_strides, clip, head)
    register = tl.arange(0, REGISTERS)
    exists = register < registers
    k = rows(of_head(key, key_strides, clip, head), register, exists, key_strides[2], width, WIDTH)
    value = of_head(value, value_strides, clip, head)
    v = rows(value, register, exists, value_strides[2], value_width, VALUE_WIDTH)
    k_summed = tl.zeros([REGISTERS, WIDTH], tl.float32)
    v_summed = tl.zeros([REGISTERS, VALUE_WIDTH], tl.float32)
    for start in range(0, PART, BLOCK):
        token = part * PART + start + tl.arange(0, BLOCK)
        there = token < tokens
        q = rows(query, token, there, query_strides[2], width, WIDTH)
        upstream = rows(given, token, there, given_strides[2], value_width, VALUE_WIDTH)
        theirs = (clip * tokens + token) * heads + head
        denominator = tl.load(logsumexp + theirs, mask=there, other=0.0)[:, None]
        aligned = tl.load(alignment + theirs, mask=there, other=0.0)[:, None]
        seen = there[:, None] & exists[None, :]
        weight, of_score = of_scores(q, k, v, upstream, seen, denominator, aligned, scale)
        v_summed += tl.dot(tl.trans(weight.to(upstream.dtype)), upstream, input_precision="tf32x3")
        k_summed += tl.dot(tl.trans(of_score.to(q.dtype)), q, input_precision="tf32x3")
    mine = (tl.program_id(0).to(tl.int64) * registers + register) * heads + head
    store_rows(of_key, k_summed * natural_scale, mine, exists, width, width, WIDTH)
    store_rows(of_value, v_summed, mine, exists, value_width, value_width, VALUE_WIDTH)
