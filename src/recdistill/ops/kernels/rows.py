"""Kernels of ``recdistill.ops.rows``: membership, and unique ids by marking."""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Ints = NDArray[np.int64]


@kernel(parallel=True)
def contains(
    indptr: Ints, items: NDArray[np.int32], users: Ints, ids: Ints, found: NDArray[np.bool_]
) -> None:
    """Fill found (b, n): whether ids[row, column] is among the items of users[row]."""
    for row in prange(ids.shape[0]):
        start, stop = indptr[users[row]], indptr[users[row] + 1]
        for column in range(ids.shape[1]):
            item = ids[row, column]
            low, high = start, stop
            while low < high:
                middle = (low + high) >> 1
                if items[middle] < item:
                    low = middle + 1
                else:
                    high = middle
            found[row, column] = low < stop and items[low] == item


@kernel()
def unique_inverse(ids: Ints, places: Ints, unique: Ints, inverse: Ints) -> int:
    """Fill unique (ascending, one place to spare) and inverse, by marking in places (bound,), all 0.

    Returns how many unique ids there are, -1 where an id is out of range.
    """
    for index in range(ids.shape[0]):
        if ids[index] < 0 or ids[index] >= places.shape[0]:
            return -1
        places[ids[index]] = 1
    count = 0
    for value in range(places.shape[0]):
        unique[count] = value  # kept only if count moves on
        marked = places[value]
        places[value] = count
        count += marked
    for index in range(ids.shape[0]):
        inverse[index] = places[ids[index]]
    return count
