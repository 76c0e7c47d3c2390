"""Kernels of ``recdistill.ops.log_sum_exp``: one tile of scores, on one thread.

Exponentials are powers of two: e^s = 2^(s · log2 e), so that the whole part of the exponent is an addition to the
bits of the result. What is below 2^-126 of the largest term counts as 0. Scores are taken from one another before they
are scaled: large ones near each other differ exactly, while a product fused with a subtraction would not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int32]
Ints = NDArray[np.int64]

_LOG2_E = 1.4426950408889634
_POSITIVE = 0x7FFFFFFF
# 2^f = Σ (f ln 2)^k / k!: to a seventh of a float32's last place and a half for |f| <= 1/2
_C1, _C2, _C3 = 0.6931471805599453, 0.2402265069591007, 0.05550410866482158
_C4, _C5, _C6 = 0.009618129107628477, 0.0013333558146428443, 0.00015403530393381608


@kernel(reorder=True)
def _power_of_two(exponent: Any) -> Any:
    """2^exponent for an exponent of at most about 0, to 2e-7 relative."""
    whole = np.int32(exponent - np.float32(0.5))
    rest = exponent - np.float32(whole)
    value = rest * np.float32(_C6) + np.float32(_C5)
    value = value * rest + np.float32(_C4)
    value = value * rest + np.float32(_C3)
    value = value * rest + np.float32(_C2)
    value = value * rest + np.float32(_C1)
    value = value * rest + np.float32(1)
    scaled = np.int32(np.float32(value).view(np.int32) + (whole << np.int32(23))).view(np.float32)
    return np.float32(0) if exponent < np.float32(-126) else scaled


@kernel()
def _leave_out(scores: Floats, base: int, stop: int, excluded: Ids, cursor: int) -> int:
    """Set the excluded columns of a row's tile (w,) to -inf, and return the next cursor."""
    while cursor < stop and excluded[cursor] < base + scores.shape[0]:
        if excluded[cursor] >= base:
            scores[excluded[cursor] - base] = -np.inf
        cursor += 1
    return cursor


@kernel(reorder=True)
def _largest(codes: Codes) -> Any:
    """The largest of a row's floats, given as their bits: whole numbers are compared, which vectorises."""
    best = np.int32(-_POSITIVE - 1)
    for j in range(codes.shape[0]):
        code = codes[j]
        best = max(best, np.int32(code ^ ((code >> np.int32(31)) & np.int32(_POSITIVE))))
    return np.int32(best ^ ((best >> np.int32(31)) & np.int32(_POSITIVE))).view(np.float32)


@kernel(reorder=True)
def add_powers(
    scores: Floats,
    codes: Codes,
    base: int,
    indptr: Ints,
    excluded: Ids,
    cursors: Ints,
    tops: Floats,
    totals: Doubles,
) -> None:
    """Take in one tile (r, w) of the columns from ``base``: e^tops · totals is the sum so far of e^score.

    codes is the same memory as scores, which is overwritten where it is excluded; cursors, tops and totals (r,).
    """
    for row in range(scores.shape[0]):
        own = scores[row]
        cursors[row] = _leave_out(own, base, indptr[row + 1], excluded, cursors[row])
        top = _largest(codes[row])
        if not (top <= tops[row]):
            totals[row] *= np.exp(np.float64(tops[row] - top))
            tops[row] = top
        top = tops[row]
        if top == -np.inf:  # nothing but excluded columns so far
            continue
        total = np.float32(0)
        for j in range(own.shape[0]):
            total += _power_of_two((own[j] - top) * np.float32(_LOG2_E))
        totals[row] += total


@kernel(reorder=True)
def weigh(
    scores: Floats,
    base: int,
    indptr: Ints,
    excluded: Ids,
    cursors: Ints,
    shifts: Floats,
    scales: Floats,
) -> None:
    """One tile (r, w) of scores becomes scales · e^(score - shifts), 0 where excluded."""
    for row in range(scores.shape[0]):
        own = scores[row]
        cursors[row] = _leave_out(own, base, indptr[row + 1], excluded, cursors[row])
        shift, scale = shifts[row], scales[row]
        for j in range(own.shape[0]):
            own[j] = scale * _power_of_two((own[j] - shift) * np.float32(_LOG2_E))
