"""Kernels of ``recdistill.ops.topk``: collect what beats a row's running limit, cut back to k, sort at last.

A candidate is one int64: its score as 32 bits that grow as the score falls (its code), then its position.
Rows see positions in ascending order and every step keeps that order, so candidates of equal score stay
sorted by position and no step compares positions. A score equal to the limit cannot enter any more, because k
candidates of at least that score and of smaller positions are held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Ints = NDArray[np.int64]

LANES = 64
"""Scores compared at once; a row's buffer needs as much room beyond what it keeps."""

SAMPLE = 256
"""Scores of a row's first tile that estimate its first limit."""

_CODE = 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    return intrinsic(function)  # whose own type keeps the typing context among the arguments


@_intrinsic
def _above(typing_context: Any, data: Any, index: Any, limit: Any) -> Any:
    """Bit l: data[index + l] > limit, or NaN. Loops over the lanes are not vectorised: 6 times slower."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        vector = ir.VectorType(ir.FloatType(), LANES)
        undefined = ir.Constant(vector, ir.Undefined)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        first = builder.insert_element(undefined, arguments[2], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        limits = builder.shuffle_vector(first, undefined, zeros)
        hits = builder.fcmp_unordered(">", builder.load(address, align=4), limits)
        return builder.bitcast(hits, ir.IntType(LANES))

    return types.int64(data, types.int64, types.float32), codegen


@_intrinsic
def _lowest_bit(typing_context: Any, bits: Any) -> Any:
    """The number of the lowest bit set in an int64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@kernel()
def _code(score: Any) -> Any:
    bits = np.int64(np.float32(score + np.float32(0)).view(np.int32))  # + 0: minus zero equals zero
    return (bits & _CODE) ^ (~(bits >> 63) & _POSITIVE)


@kernel()
def _score(code: int) -> Any:
    return np.int32(code ^ (_POSITIVE if code <= _POSITIVE else 0)).view(np.float32)


@kernel()
def _cut(candidates: Ints, size: int, k: int, counts: Ints) -> int:
    """Keep the k best of candidates[:size], in their order, and return the last one's code; counts (256,)."""
    left = k  # how many of the codes that begin with `code` are kept
    code = 0
    for shift in (56, 48, 40, 32):
        counts[:] = 0
        for j in range(size):
            inside = ((candidates[j] >> 32) & _CODE) >> (shift - 24) == code
            counts[(candidates[j] >> shift) & 255] += inside
        digit = 0
        while counts[digit] < left:
            left -= counts[digit]
            digit += 1
        code = (code << 8) | digit
    kept = 0
    for j in range(size):
        candidate = candidates[j]
        other = (candidate >> 32) & _CODE
        candidates[kept] = candidate
        kept += (other < code) | ((other == code) & (left > 0))
        left -= other == code
    return code


@kernel()
def _sort(candidates: Ints, size: int, spare: Ints, counts: Ints) -> None:
    """Sort candidates[:size] by code, stably, a byte at a time; spare (size,), counts (256,)."""
    source, target = candidates, spare
    for shift in (32, 40, 48, 56):
        counts[:] = 0
        for j in range(size):
            counts[(source[j] >> shift) & 255] += 1
        total = 0
        for digit in range(256):
            count = counts[digit]
            counts[digit] = total
            total += count
        for j in range(size):
            digit = (source[j] >> shift) & 255
            target[counts[digit]] = source[j]
            counts[digit] += 1
        source, target = target, source


@kernel()
def _first_limit(scores: Floats, start: int, width: int, k: int, candidates: Ints, counts: Ints) -> Any:
    """A limit that all but surely more than k, and not many more, of a row's first scores pass."""
    expected = k * SAMPLE / width
    rank = int(expected + 3 * np.sqrt(expected)) + 2
    if width < 4 * SAMPLE or rank > SAMPLE // 2 or candidates.shape[0] < SAMPLE:
        return np.float32(-np.inf)
    stride = width // SAMPLE
    for j in range(SAMPLE):
        candidates[j] = _code(scores[start + j * stride]) << 32
    return _score(_cut(candidates, SAMPLE, rank, counts))


@kernel()
def _scan_row(
    scores: Floats,
    start: int,
    width: int,
    base: int,
    k: int,
    excluded: Ids,
    cursor: int,
    stop: int,
    candidates: Ints,
    size: int,
    limit: Any,
    counts: Ints,
) -> tuple[int, Any, int, bool]:
    """Append scores[start : start + width], positions from base, that beat the limit and are not excluded."""
    nan = False
    skip = np.int64(excluded[cursor]) if cursor < stop else _CODE
    for j in range(0, width, LANES):
        if j + LANES <= width:
            hits = _above(scores, start + j, limit)
        else:
            hits = 0
            for lane in range(width - j):
                hits |= np.int64(not (scores[start + j + lane] <= limit)) << lane
        if hits != 0 and size + LANES > candidates.shape[0]:
            limit = _score(_cut(candidates, size, k, counts))
            size = k
        while hits != 0:
            offset = j + _lowest_bit(hits)
            hits &= hits - 1
            score = scores[start + offset]
            nan |= score != score
            position = base + offset
            while skip < position:
                cursor += 1
                skip = np.int64(excluded[cursor]) if cursor < stop else _CODE
            candidates[size] = (_code(score) << 32) | position
            size += position != skip
    return size, limit, cursor, nan


@kernel()
def scan(
    scores: Floats,
    stride: int,
    width: int,
    base: int,
    depths: Ints,
    indptr: Ints,
    excluded: Ids,
    candidates: Ints,
    sizes: Ints,
    limits: Floats,
    cursors: Ints,
) -> bool:
    """Take in one tile of every row; row r's scores are scores[r * stride :][:width]. True if one was NaN.

    depths (r,) says how many each row keeps; candidates (r, at least that + LANES), sizes, limits and cursors (r,) hold
    what the rows have so far.
    """
    counts = np.empty(256, np.int64)
    found = False
    for row in range(sizes.shape[0]):
        start, stop, before, k = row * stride, indptr[row + 1], cursors[row], depths[row]
        limit = limits[row]
        if base == 0:
            limit = _first_limit(scores, start, width, k, candidates[row], counts)
        size, new, cursor, nan = _scan_row(
            scores, start, width, base, k, excluded, before, stop, candidates[row], sizes[row], limit, counts
        )
        if base == 0 and size < k and limit > -np.inf:  # too few passed the estimate: without it
            size, new, cursor, nan = _scan_row(
                scores, start, width, 0, k, excluded, before, stop, candidates[row], 0, limits[row], counts
            )
        sizes[row], limits[row], cursors[row] = size, new, cursor
        found |= nan
    return found


@kernel()
def finish(candidates: Ints, sizes: Ints, k: int, out_scores: Floats, out_ids: Ints) -> None:
    """Write the best k of every row to out_scores and out_ids (r, k), padded with -inf and -1."""
    counts = np.empty(256, np.int64)
    spare = np.empty(k, np.int64)
    for row in range(sizes.shape[0]):
        size = sizes[row]
        if size > k:
            _cut(candidates[row], size, k, counts)
            size = k
        _sort(candidates[row], size, spare, counts)
        for j in range(size):
            candidate = candidates[row, j]
            out_scores[row, j] = _score((candidate >> 32) & _CODE)
            out_ids[row, j] = candidate & _CODE
        for j in range(size, k):
            out_scores[row, j] = -np.inf
            out_ids[row, j] = -1


@kernel()
def finish_at(candidates: Ints, sizes: Ints, depths: Ints, positions: Ints, out_ids: Ints) -> None:
    """Write what every row ranks at positions (r, m), below its depth, to out_ids (r, m); -1 where there is nothing."""
    counts = np.empty(256, np.int64)
    spare = np.empty(candidates.shape[1], np.int64)
    for row in range(sizes.shape[0]):
        size = sizes[row]
        if size > depths[row]:
            _cut(candidates[row], size, depths[row], counts)
            size = depths[row]
        _sort(candidates[row], size, spare, counts)
        for j in range(positions.shape[1]):
            position = positions[row, j]
            out_ids[row, j] = candidates[row, position] & _CODE if 0 <= position < size else -1
