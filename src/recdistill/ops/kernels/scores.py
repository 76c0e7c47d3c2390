"""Kernels of ``recdistill.ops.scores``: the scores, and the gradients by users and by items."""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.gradients import Places
from recdistill.ops.kernels import kernel

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@kernel(parallel=True, reorder=True)
def scores(user_table: Floats, item_table: Floats, users: Ints, ids: Ints, out: Floats) -> bool:
    """Fill out (b, n); False where an id is below -1 or beyond the item table."""
    num_items, dim = item_table.shape
    wrong = 0
    for row in prange(ids.shape[0]):
        user = users[row]
        for column in range(ids.shape[1]):
            item = ids[row, column]
            total = np.float32(0)
            if 0 <= item < num_items:
                for k in range(dim):
                    total += user_table[user, k] * item_table[item, k]
            elif item != -1:
                wrong += 1
            out[row, column] = total + np.float32(0)  # −0 becomes 0
    return wrong == 0


@kernel(parallel=True, reorder=True)
def user_gradient(gradient: Floats, item_table: Floats, ids: Ints, out: Floats) -> None:
    """out[row] = Σ_column gradient[row, column] * item_table[ids[row, column]], (b, d)."""
    dim = item_table.shape[1]
    for row in prange(ids.shape[0]):
        for k in range(dim):
            out[row, k] = 0
        for column in range(ids.shape[1]):
            item = ids[row, column]
            if item >= 0:
                weight = gradient[row, column]
                for k in range(dim):
                    out[row, k] += weight * item_table[item, k]


@kernel(parallel=True, reorder=True)
def item_gradient(
    gradient: Floats, user_table: Floats, users: Ints, ids: Ints, parts: int, out: Floats
) -> None:
    """out[item] = Σ gradient[row, column] * user_table[users[row]] over the places where ids == item, (I, d).

    Each thread owns a range of items, reads all ids and adds up its own items: no accumulator a thread, and
    sums in the same order whatever the number of threads.
    """
    num_items, dim = out.shape
    num_columns = ids.shape[1]
    for part in prange(parts):
        low = num_items * part // parts
        high = num_items * (part + 1) // parts
        for item in range(low, high):
            for k in range(dim):
                out[item, k] = 0
        mine = np.empty(num_columns + 1, np.int64)
        for row in range(ids.shape[0]):
            count = 0
            for column in range(num_columns):
                mine[count] = column  # kept only if count moves on: no branch to mispredict
                count += (ids[row, column] >= low) & (ids[row, column] < high)
            if count == 0:
                continue
            user = users[row]
            for place in range(count):
                column = mine[place]
                weight = gradient[row, column]
                item = ids[row, column]
                for k in range(dim):
                    out[item, k] += weight * user_table[user, k]


@kernel(parallel=True, reorder=True)
def touched_item_gradient(
    gradient: Floats, user_table: Floats, users: Ints, places: Places, parts: int, out: Floats
) -> None:
    """out[u] = Σ gradient[row, column] * user_table[users[row]] over the places of item places.rows[u], (m, d)."""
    num_columns = gradient.shape[1]
    count, dim = out.shape
    for part in prange(parts):
        for u in range(count * part // parts, count * (part + 1) // parts):
            for k in range(dim):
                out[u, k] = 0
            for index in range(places.starts[u], places.starts[u + 1]):
                row = places.order[index] // num_columns
                column = places.order[index] - row * num_columns
                weight, user = gradient[row, column], users[row]
                for k in range(dim):
                    out[u, k] += weight * user_table[user, k]


@kernel(parallel=True)
def add_rows(values: Floats, rows: Ints, parts: int, out: Floats) -> None:
    """out[r] = Σ values[i] over the places where rows[i] == r, (R, d); each thread owns a range of rows."""
    num_rows, dim = out.shape
    for part in prange(parts):
        low = num_rows * part // parts
        high = num_rows * (part + 1) // parts
        for row in range(low, high):
            for k in range(dim):
                out[row, k] = 0
        for place in range(rows.shape[0]):
            row = rows[place]
            if low <= row < high:
                for k in range(dim):
                    out[row, k] += values[place, k]
