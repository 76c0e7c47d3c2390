"""A 64-bit hash of external ids that never changes, so that an order by it means the same in every release.

Libraries change their hash functions between versions; this one is fixed here and held by golden values in
the tests. It is the finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), applied to an integer as it is and to a string's UTF-8 bytes eight at a time.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_BYTE = np.uint64(8)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers, one to one.

    Args:
        values: uint64 of any shape.

    Returns:
        uint64 of the same shape; equal outputs come from equal inputs only.
    """
    mixed = values + _GOLDEN
    mixed ^= mixed >> _S30
    mixed *= _MULTIPLY_1
    mixed ^= mixed >> _S27
    mixed *= _MULTIPLY_2
    mixed ^= mixed >> _S31
    return mixed


def hash_ids(ids: pl.Series) -> NDArray[np.uint64]:
    """Hash ids without nulls.

    Args:
        ids: ``(n,)`` integers (equal values hash alike whatever their width) or strings.

    Returns:
        ``(n,)`` uint64.
    """
    if ids.dtype != pl.String:
        return mix(ids.cast(pl.Int64, wrap_numerical=True).to_numpy().view(np.uint64))
    array: Any = ids.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer else np.zeros(0, dtype=np.uint8)
    hashes = np.empty(len(ids), dtype=np.uint64)
    _hash_strings(offsets, data, hashes)
    return hashes


@numba.njit(cache=True, nogil=True, inline="always")
def _mix_one(value: Any) -> Any:
    mixed = value + _GOLDEN
    mixed = (mixed ^ (mixed >> _S30)) * _MULTIPLY_1
    mixed = (mixed ^ (mixed >> _S27)) * _MULTIPLY_2
    return mixed ^ (mixed >> _S31)


@numba.njit(cache=True, nogil=True)
def _hash_strings(offsets: Any, data: Any, hashes: Any) -> None:
    for row in range(len(hashes)):
        start, end = offsets[row], offsets[row + 1]
        state = _mix_one(np.uint64(end - start))
        word = np.uint64(0)
        filled = np.uint64(0)
        for at in range(start, end):
            word |= np.uint64(data[at]) << (filled * _BYTE)
            filled += np.uint64(1)
            if filled == _BYTE:
                state = _mix_one(state ^ word)
                word = np.uint64(0)
                filled = np.uint64(0)
        if filled != np.uint64(0):
            state = _mix_one(state ^ word)
        hashes[row] = state
