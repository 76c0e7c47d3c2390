"""Kernel of ``recdistill.ops.aggregation``: sum the values of equal ids of a row, and rank the ids by their sums."""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]

_LARGEST = 0x7FFFFFFF


@kernel(parallel=True)
def aggregate(
    ids: Ids,
    values: Floats,
    scale: Floats,
    exponents: Floats,
    num_ids: int,
    threads: int,
    best: Ids,
    scores: Floats,
) -> None:
    """Fill best and scores (n, depth), which come filled with padding; values are at least 0.

    ``values`` has one row for all, or one each. With ``exponents`` (num_ids,) a sum is multiplied by its share
    of what it would be if every value were as large as the largest, once divided by ``scale``, to that power.
    """
    num_rows, width = ids.shape
    depth, discounted, shared = best.shape[1], exponents.shape[0] > 0, values.shape[0] == 1
    for thread in prange(threads):
        met = np.full(num_ids, -1, dtype=np.int64)  # the row in which an id was met last
        sums, peaks = np.zeros(num_ids), np.zeros(num_ids)
        found = np.empty(width, dtype=np.int32)
        totals = np.empty(width, dtype=np.float32)
        codes = totals.view(np.int32)  # which grow as the numbers do, where they are not negative
        for row in range(thread * num_rows // threads, (thread + 1) * num_rows // threads):
            source = 0 if shared else row
            count = 0
            for column in range(width):
                item = ids[row, column]
                if item < 0:
                    continue
                if met[item] != row:
                    met[item] = row
                    sums[item] = 0.0
                    peaks[item] = 0.0
                    found[count] = item
                    count += 1
                sums[item] += values[source, column]
                if discounted:
                    peaks[item] = max(peaks[item], values[source, column] * scale[column])
            for place in range(count):
                item = found[place]
                total = sums[item]
                if discounted and peaks[item] > 0:
                    total *= min(total / peaks[item], 1.0) ** exponents[item]
                totals[place] = total
            keys = np.empty(count, dtype=np.int64)
            for place in range(count):
                keys[place] = ((_LARGEST - np.int64(codes[place])) << 32) | np.int64(found[place])
            keys.sort()
            for place in range(min(count, depth)):
                best[row, place] = np.int32(keys[place] & _LARGEST)
                codes[place] = np.int32(_LARGEST - (keys[place] >> 32))
                scores[row, place] = totals[place]
