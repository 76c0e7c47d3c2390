"""Kernels of ``recdistill.ops.log_sum_exp``: rows by four with one tile of the items, on one thread.

A student has few dimensions: products that small are slow as products of matrices, which are made for long sums.

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
def _score(rows: Floats, items: Floats, scores: Floats) -> None:
    """scores (4, w) of four rows (4, d) with items (d, w), two dimensions at a time."""
    s0, s1, s2, s3 = scores[0], scores[1], scores[2], scores[3]
    for j in range(scores.shape[1]):
        x = items[0, j]
        s0[j] = rows[0, 0] * x
        s1[j] = rows[1, 0] * x
        s2[j] = rows[2, 0] * x
        s3[j] = rows[3, 0] * x
    by_two = 1 + (rows.shape[1] - 1) // 2 * 2
    for k in range(1, by_two, 2):
        a0, a1, a2, a3 = rows[0, k], rows[1, k], rows[2, k], rows[3, k]
        b0, b1, b2, b3 = rows[0, k + 1], rows[1, k + 1], rows[2, k + 1], rows[3, k + 1]
        for j in range(scores.shape[1]):
            x, y = items[k, j], items[k + 1, j]
            s0[j] += a0 * x + b0 * y
            s1[j] += a1 * x + b1 * y
            s2[j] += a2 * x + b2 * y
            s3[j] += a3 * x + b3 * y
    for k in range(by_two, rows.shape[1]):
        a0, a1, a2, a3 = rows[0, k], rows[1, k], rows[2, k], rows[3, k]
        for j in range(scores.shape[1]):
            x = items[k, j]
            s0[j] += a0 * x
            s1[j] += a1 * x
            s2[j] += a2 * x
            s3[j] += a3 * x


@kernel(reorder=True)
def add_powers(
    rows: Floats,
    items: Floats,
    scores: Floats,
    codes: Codes,
    base: int,
    indptr: Ints,
    excluded: Ids,
    cursors: Ints,
    tops: Floats,
    totals: Doubles,
) -> None:
    """Take in the items (d, w) from ``base``: e^tops · totals is the sum so far of each row's e^score.

    rows (r, d), r a multiple of 4; scores (4, w) is overwritten, and codes the same memory; cursors, tops, totals (r,).
    """
    for first in range(0, rows.shape[0], 4):
        _score(rows[first : first + 4], items, scores)
        for i in range(4):
            row, own = first + i, scores[i]
            cursors[row] = _leave_out(own, base, indptr[row + 1], excluded, cursors[row])
            top = _largest(codes[i])
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
def add_gradients(
    rows: Floats,
    items: Floats,
    scores: Floats,
    base: int,
    indptr: Ints,
    excluded: Ids,
    cursors: Ints,
    shifts: Floats,
    scales: Floats,
    by_row: Floats,
    by_item: Floats,
) -> None:
    """With p = scales · e^(score - shifts), 0 where excluded: add p · item to by_row (r, d), p · row to by_item (d, w).

    Shapes as in :func:`add_powers`.
    """
    s0, s1, s2, s3 = scores[0], scores[1], scores[2], scores[3]
    for first in range(0, rows.shape[0], 4):
        _score(rows[first : first + 4], items, scores)
        for i in range(4):
            row, own = first + i, scores[i]
            cursors[row] = _leave_out(own, base, indptr[row + 1], excluded, cursors[row])
            shift, scale = shifts[row], scales[row]
            for j in range(own.shape[0]):
                own[j] = scale * _power_of_two((own[j] - shift) * np.float32(_LOG2_E))
        for k in range(rows.shape[1]):
            a0, a1, a2, a3 = rows[first, k], rows[first + 1, k], rows[first + 2, k], rows[first + 3, k]
            t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for j in range(scores.shape[1]):
                x = items[k, j]
                t0 += s0[j] * x
                t1 += s1[j] * x
                t2 += s2[j] * x
                t3 += s3[j] * x
                by_item[k, j] += a0 * s0[j] + a1 * s1[j] + (a2 * s2[j] + a3 * s3[j])
            by_row[first, k] += t0
            by_row[first + 1, k] += t1
            by_row[first + 2, k] += t2
            by_row[first + 3, k] += t3
