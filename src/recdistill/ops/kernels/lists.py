"""Kernels of ``recdistill.ops.lists``: what two lists have in common, and where."""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Ints = NDArray[np.int64]


@kernel(parallel=True)
def common(
    ids: Ints, reference: NDArray[np.int32], cuts: Ints, num_items: int, threads: int, counts: Ints
) -> None:
    """Fill counts (n, cuts): items that are in the first k of both rows; reference rows hold no item twice."""
    num_rows, depth = reference.shape
    for thread in prange(threads):
        # where an item stood when last met: row * depth + column + 1, so that no row need be cleared
        met = np.zeros(num_items, dtype=np.int64)
        for row in range(thread * num_rows // threads, (thread + 1) * num_rows // threads):
            first = row * depth
            for column in range(depth):
                if reference[row, column] >= 0:
                    met[reference[row, column]] = first + column + 1
            for column in range(ids.shape[1]):
                item = ids[row, column]
                if item >= 0 and met[item] > first:
                    later = max(column, met[item] - first - 1)
                    for place in range(cuts.shape[0]):
                        counts[row, place] += later < cuts[place]


@kernel(parallel=True)
def places(
    ids: NDArray[np.int32], lists: NDArray[np.int32], num_ids: int, threads: int, out: NDArray[np.int32]
) -> None:
    """Fill out (n, m): the column of lists (n, depth) that each id stands in, -1 where it is in none."""
    num_rows, depth = lists.shape
    for thread in prange(threads):
        met = np.zeros(num_ids, dtype=np.int64)  # as in `common`
        for row in range(thread * num_rows // threads, (thread + 1) * num_rows // threads):
            first = row * depth
            for column in range(depth):
                if lists[row, column] >= 0:
                    met[lists[row, column]] = first + column + 1
            for column in range(ids.shape[1]):
                item = ids[row, column]
                found = item >= 0 and met[item] > first
                out[row, column] = met[item] - first - 1 if found else -1
