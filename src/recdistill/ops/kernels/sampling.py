"""Kernels of ``recdistill.ops.sampling``: unobserved items by rank, positions and weights by exponential clocks."""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Items = NDArray[np.int32]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LOW = np.uint64(0xFFFFFFFF)


@kernel()
def unobserved_item(items: Items, start: int, stop: int, rank: int) -> int:
    """The rank-th id (from 0) that is not among the ascending ids items[start:stop]."""
    low, high = start, stop
    while low < high:  # counts the ids x with x - (their place in the row) <= rank
        middle = (low + high) >> 1
        if items[middle] - (middle - start) <= rank:
            low = middle + 1
        else:
            high = middle
    return rank + low - start


@kernel(parallel=True)
def draw_with_replacement(indptr: Ints, items: Items, num_items: int, users: Ints, numbers: Ints) -> None:
    """Turn random numbers (b, n) into items outside each user's row, -1 where there are none."""
    for row in prange(numbers.shape[0]):
        user = users[row]
        start, stop = int(indptr[user]), int(indptr[user + 1])
        count = num_items - (stop - start)
        for column in range(numbers.shape[1]):
            item = -1
            if count > 0:
                item = unobserved_item(items, start, stop, numbers[row, column] % count)
            numbers[row, column] = item


@kernel(parallel=True)
def draw_without_replacement(
    indptr: Ints, items: Items, num_items: int, users: Ints, numbers: Ints, capacity: int
) -> None:
    """The same with distinct items in each row: the first steps of a Fisher-Yates shuffle of the ranks.

    Only the ranks that were swapped are kept, in a hash table of ``capacity`` places, a power of 2 and at
    least twice the number of columns.
    """
    mask = capacity - 1
    for row in prange(numbers.shape[0]):
        user = users[row]
        start, stop = int(indptr[user]), int(indptr[user + 1])
        count = num_items - (stop - start)
        drawn = min(count, numbers.shape[1])
        ranks, values = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        for place in range(capacity):
            ranks[place] = -1
        for step in range(drawn):
            chosen = step + numbers[row, step] % (count - step)
            own = find(ranks, step, mask)
            place = find(ranks, chosen, mask)
            at_own = values[own] if ranks[own] == step else step
            at_chosen = values[place] if ranks[place] == chosen else chosen
            ranks[place] = chosen
            values[place] = at_own
            numbers[row, step] = unobserved_item(items, start, stop, at_chosen)
        for step in range(max(drawn, 0), numbers.shape[1]):
            numbers[row, step] = -1


@kernel()
def find(ranks: Ints, rank: int, mask: int) -> int:
    """Where a rank lies in the hash table, or the free place where it would go."""
    place = ((rank * 0x9E3779B1) >> 7) & mask
    while ranks[place] != -1 and ranks[place] != rank:
        place = (place + 1) & mask
    return place


@kernel()
def number(seed: np.uint64, row: int, step: int) -> np.uint64:
    """64 random bits for each (row, step): splitmix64 at that counter."""
    bits = seed + GOLDEN * ((np.uint64(row) << np.uint64(32)) + np.uint64(step))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@kernel()
def clock(seed: np.uint64, row: int, position: int) -> float:
    """An exponential variable of mean 1 for each (row, position)."""
    return -math.log((np.float64(number(seed, row, position) >> np.uint64(11)) + 0.5) * 2.0**-53)


@kernel()
def smallest(values: Doubles, count: int, k: int) -> float:
    """The k-th smallest (from 1) of values[:count], which is reordered (Hoare's selection)."""
    low, high, place = 0, count - 1, k - 1
    while low < high:
        pivot = values[place]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if right < place:
            low = left
        if left > place:
            high = right
    return values[place]


@kernel(parallel=True)
def positions(
    lengths: Ints, temperature: float, slowness: Doubles, head: int, seed: np.uint64, out: Ints
) -> None:
    """Fill out (b, k), k > 0, with distinct positions, ascending; see ``sample_positions`` for the method.

    slowness: (longest,) e^((position - k) / temperature), the mean of each position's clock.
    head: how many positions have their clocks drawn at once, > k.
    """
    k = out.shape[1]
    for row in prange(out.shape[0]):
        length = lengths[row]
        if length <= k:
            for column in range(k):
                out[row, column] = column if column < length else -1
            continue
        clocks = np.empty(length, np.float64)
        scratch = np.empty(length, np.float64)
        drawn = min(length, head)
        for position in range(drawn):
            clocks[position] = clock(seed, row, position) * slowness[position]
            scratch[position] = clocks[position]
        limit = smallest(scratch, drawn, k)
        if drawn < length:
            rest = math.expm1(-(length - drawn) / temperature)
            rate = rest / math.expm1(-1.0 / temperature) / slowness[drawn]
            earliest = clock(seed, row, length) / rate
            if earliest < limit:
                share = math.exp(-clock(seed, row, length + 1))  # uniform in (0, 1)
                first = drawn + int(-temperature * math.log1p(share * rest))
                first = min(first, length - 1)
                for position in range(drawn, length):
                    clocks[position] = earliest + clock(seed, row, position) * slowness[position]
                clocks[first] = earliest
                for position in range(length):
                    scratch[position] = clocks[position]
                limit = smallest(scratch, length, k)
                drawn = length
        column = 0
        for position in range(drawn):
            if column < k and clocks[position] <= limit:
                out[row, column] = position
                column += 1


@kernel(parallel=True)
def weighted(weights: Singles, rows: Ints, sign: np.float32, seed: np.uint64, out: Ints) -> None:
    """Fill out (b, k) with distinct columns, ascending, then -1; see ``sample_weighted`` for the method."""
    width, k = weights.shape[1], out.shape[1]
    for row in prange(out.shape[0]):
        source = rows[row]
        places = np.empty(width + 1, np.int32)  # the columns that are left
        count = 0
        largest = np.float32(0)
        for column in range(width):
            weight = sign * weights[source, column]
            places[count] = column  # kept only if count moves on: no branch to mispredict
            count += weight > 0
            largest = max(largest, weight)
        if count <= k:
            for column in range(k):
                out[row, column] = places[column] if column < count else -1
            continue
        drawn = np.zeros(width, np.uint8)
        accepted = 0
        scale = sign * (np.float32(2.0**32) / largest)
        for step in range(4 * k):
            if accepted == k:
                break
            bits = number(seed, row, step)
            column = places[((bits >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)]
            hit = (np.float32(bits & LOW) < weights[source, column] * scale) & (drawn[column] == 0)
            drawn[column] |= hit
            accepted += hit
        if accepted < k:
            add_by_clocks(weights[source], sign, seed, row, k - accepted, drawn)
        found = 0
        for column in range(width):
            places[found] = column
            found += drawn[column]
        for column in range(k):
            out[row, column] = places[column]


@kernel()
def add_by_clocks(
    weights: Singles, sign: np.float32, seed: np.uint64, row: int, k: int, drawn: Bytes
) -> None:
    """Mark k more columns of a row as drawn: those whose exponential clocks strike first."""
    clocks = np.full(len(weights), np.inf)
    scratch = np.empty(len(weights), np.float64)
    for column in range(len(weights)):
        weight = sign * weights[column]
        if weight > 0 and drawn[column] == 0:
            clocks[column] = clock(seed ^ GOLDEN, row, column) / weight
        scratch[column] = clocks[column]
    limit = smallest(scratch, len(weights), k)
    for column in range(len(weights)):
        if k > 0 and clocks[column] <= limit:
            drawn[column] = 1
            k -= 1
