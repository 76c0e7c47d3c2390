"""Kernels of ``recdistill.ops.rectified``: the sums, and the gradients by rows, by items and by weights."""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@kernel(parallel=True, reorder=True)
def sums(row_table: Floats, item_table: Floats, weight: Floats, rows: Ints, ids: Ints, out: Floats) -> bool:
    """Fill out (b, n); False where an id is below -1 or beyond the item table."""
    num_items, width = item_table.shape
    wrong = 0
    for place in prange(ids.shape[0]):
        row = rows[place]
        for column in range(ids.shape[1]):
            item = ids[place, column]
            total = np.float32(0)
            if 0 <= item < num_items:
                for k in range(width):
                    total += weight[k] * max(row_table[row, k] + item_table[item, k], np.float32(0))
            elif item != -1:
                wrong += 1
            out[place, column] = total
    return wrong == 0


@kernel(parallel=True, reorder=True)
def row_gradients(
    gradient: Floats,
    row_table: Floats,
    item_table: Floats,
    rows: Ints,
    ids: Ints,
    counts: Floats,
    sums: Floats,
) -> None:
    """Of each place: Σ_column gradient where a unit is above 0, and times what it is there, (b, width) each."""
    width = item_table.shape[1]
    for place in prange(ids.shape[0]):
        row = rows[place]
        for k in range(width):
            counts[place, k] = 0
            sums[place, k] = 0
        for column in range(ids.shape[1]):
            item = ids[place, column]
            if item >= 0:
                slope = gradient[place, column]
                for k in range(width):
                    unit = row_table[row, k] + item_table[item, k]
                    counts[place, k] += slope if unit > 0 else np.float32(0)
                    sums[place, k] += slope * max(unit, np.float32(0))


@kernel(parallel=True, reorder=True)
def item_gradient(
    gradient: Floats,
    row_table: Floats,
    item_table: Floats,
    rows: Ints,
    ids: Ints,
    parts: int,
    out: Floats,
) -> None:
    """out[item] = Σ gradient over the places where ids == item and a unit is above 0, (I, width).

    Each thread owns a range of items: sums in the same order whatever the number of threads.
    """
    num_items, width = out.shape
    num_columns = ids.shape[1]
    for part in prange(parts):
        low = num_items * part // parts
        high = num_items * (part + 1) // parts
        for item in range(low, high):
            for k in range(width):
                out[item, k] = 0
        mine = np.empty(num_columns + 1, np.int64)
        for place in range(ids.shape[0]):
            count = 0
            for column in range(num_columns):
                mine[count] = column  # kept only if count moves on: no branch to mispredict
                count += (ids[place, column] >= low) & (ids[place, column] < high)
            row = rows[place]
            for index in range(count):
                slope = gradient[place, mine[index]]
                item = ids[place, mine[index]]
                for k in range(width):
                    above = row_table[row, k] + item_table[item, k] > 0
                    out[item, k] += slope if above else np.float32(0)
