"""Kernels of ``recdistill.ops.optim``: places grouped by row, then one pass over parameter and state."""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.gradients import Places
from recdistill.ops.kernels import kernel
from recdistill.ops.optim import AdamSettings

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Slots = NDArray[np.int32]

BLOCK = 1 << 14
"""Elements of a dense parameter that one iteration moves."""

DENSE = 16
"""Where at least one row in as many is read, all are looked through to find them in order; else they are sorted."""

TINY = 1e-30
TINY_SQUARE = 1e-37
"""Smaller values become 0: weight decay shrinks what has no other gradient (a dead unit's weights) until it is
denormal, and one denormal factor makes a matrix product ten times slower."""


@kernel()
def group(ids: Ints, slots: Slots, rows: Ints, starts: Ints, order: Ints) -> int:
    """Sort the places of ids by row: rows[u] has the places order[starts[u]:starts[u + 1]], both ascending.

    slots: (R,) all -1; afterwards slots[rows[u]] is u. Ids of -1 are left out. Returns the number of rows, or
    -1, with the slots as they were, where an id is out of range.
    """
    count = 0
    for place in range(ids.shape[0]):
        row = ids[place]
        if row < -1 or row >= slots.shape[0]:
            clear(rows, count, slots)
            return -1
        if row >= 0 and slots[row] < 0:
            slots[row] = 0
            rows[count] = row
            count += 1
    if count * DENSE < slots.shape[0]:
        rows[:count] = np.sort(rows[:count])
    else:
        count = 0
        for row in range(slots.shape[0]):
            if slots[row] >= 0:
                rows[count] = row
                count += 1
    for u in range(count):
        slots[rows[u]] = u
        starts[u] = 0
    starts[count] = 0
    for place in range(ids.shape[0]):
        if ids[place] >= 0:
            starts[slots[ids[place]] + 1] += 1
    for u in range(count):
        starts[u + 1] += starts[u]
    filled = starts[:count].copy()
    for place in range(ids.shape[0]):
        row = ids[place]
        if row >= 0:
            u = slots[row]
            order[filled[u]] = place
            filled[u] += 1
    return count


@kernel()
def clear(rows: Ints, count: int, slots: Slots) -> None:
    """Set the slots of the first count rows back to -1."""
    for u in range(count):
        slots[rows[u]] = -1


@kernel()
def sum_places(values: Floats, places: Places, u: int, total: Floats) -> bool:
    """Add up the values of row u in the order of their places; whether the sum has a non-zero element."""
    first = places.order[places.starts[u]]
    for k in range(total.shape[0]):
        total[k] = values[first, k]
    for index in range(places.starts[u] + 1, places.starts[u + 1]):
        place = places.order[index]
        for k in range(total.shape[0]):
            total[k] += values[place, k]
    zeros = 0
    for k in range(total.shape[0]):
        zeros += total[k] == 0
    return zeros < total.shape[0]


@kernel(reorder=True)
def adam_move(param: Floats, m: Floats, v: Floats, gradient: Floats, adam: AdamSettings) -> None:
    """One step of Adam on the elements of flat arrays; what falls below ``TINY`` becomes 0."""
    new1, new2, keep2 = np.float32(1 - adam.keep1), np.float32(1 - adam.keep2), np.float32(adam.keep2)
    size, root = np.float32(adam.size), np.float32(adam.root)
    epsilon, decay = np.float32(adam.epsilon), np.float32(adam.decay)
    tiny, tinier = np.float32(TINY), np.float32(TINY_SQUARE)
    for k in range(param.shape[0]):
        slope = gradient[k] + decay * param[k]
        mean = m[k] + new1 * (slope - m[k])
        square = keep2 * v[k] + new2 * (slope * slope)
        moved = param[k] - size * mean / (math.sqrt(square) * root + epsilon)
        m[k] = np.float32(0) if abs(mean) < tiny else mean
        v[k] = np.float32(0) if square < tinier else square
        param[k] = np.float32(0) if abs(moved) < tiny else moved


@kernel(parallel=True)
def adam_dense(param: Floats, m: Floats, v: Floats, gradient: Floats, adam: AdamSettings) -> None:
    """One step of Adam on all elements; all arrays flat."""
    count = param.shape[0]
    for block in prange((count + BLOCK - 1) // BLOCK):
        low = block * BLOCK
        high = min(low + BLOCK, count)
        adam_move(param[low:high], m[low:high], v[low:high], gradient[low:high], adam)


@kernel(parallel=True)
def adam_all_rows(
    param: Floats, m: Floats, v: Floats, values: Floats, places: Places, adam: AdamSettings
) -> None:
    """One step of Adam on all rows of flat arrays, of which those with a slot have a gradient."""
    num_rows, dim = places.slots.shape[0], values.shape[1]
    height = max(1, BLOCK // (8 * dim))  # rows whose gradient stays in the first cache
    for block in prange((num_rows + height - 1) // height):
        first = block * height
        last = min(first + height, num_rows)
        gradient = np.zeros((last - first) * dim, np.float32)
        for row in range(first, last):
            if places.slots[row] >= 0:
                start = (row - first) * dim
                sum_places(values, places, places.slots[row], gradient[start : start + dim])
        low, high = first * dim, last * dim
        adam_move(param[low:high], m[low:high], v[low:high], gradient, adam)


@kernel(parallel=True)
def adam_touched_rows(
    param: Floats, m: Floats, v: Floats, values: Floats, places: Places, parts: int, adam: AdamSettings
) -> None:
    """One step of Adam on the rows with places, but for those whose gradient is zero."""
    count = places.rows.shape[0]
    for part in prange(parts):
        total = np.empty(param.shape[1], np.float32)
        for u in range(count * part // parts, count * (part + 1) // parts):
            row = places.rows[u]
            if sum_places(values, places, u, total):
                adam_move(param[row], m[row], v[row], total, adam)


@kernel(parallel=True, reorder=True)
def adagrad_rows(
    param: Floats,
    squares: Floats,
    values: Floats,
    places: Places,
    parts: int,
    learning_rate: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """One step of row-wise Adagrad on the rows with places, but for those whose gradient is zero."""
    count = places.rows.shape[0]
    dim = param.shape[1]
    decay = np.float32(weight_decay)
    for part in prange(parts):
        total = np.empty(dim, np.float32)
        for u in range(count * part // parts, count * (part + 1) // parts):
            if not sum_places(values, places, u, total):
                continue
            row = places.rows[u]
            square = np.float32(0)
            for k in range(dim):
                total[k] += decay * param[row, k]
                square += total[k] * total[k]
            squares[row] += square / np.float32(dim)
            size = np.float32(learning_rate / (math.sqrt(squares[row]) + epsilon))
            for k in range(dim):
                param[row, k] -= size * total[k]
