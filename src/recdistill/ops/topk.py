"""The k best items of every row, without ever holding rows × items scores.

score(r, i) = rows[r] · items[i] + bias[i], in float32. Best first; equal scores rank by smaller id, also at
the cut after k; an excluded item is never returned. A score of -inf means "not available", so id -1 and
score -inf always go together and fill the end of a row with fewer than k available items.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recdistill.errors import DataError, OptionError
from recdistill.ops.rows import Rows, owners_of, positions_among
from recdistill.ops.topk_blocks import Dense, Product, select, select_at

_PAD_KEY = torch.iinfo(torch.int64).min
_LOW = 0xFFFFFFFF
_TWIN_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}


def top_k(
    rows: Tensor,
    items: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    exclude: Rows | None = None,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the `k` items of the highest score for every row.

    Args:
        rows: (b, d) floating, one vector a row (a user, a sequence).
        items: (I, d) of the same dtype and device; may be memory-mapped or non-contiguous.
        k: at least 1; may exceed the number of items.
        bias: (I,) added to every row's scores.
        exclude: items never returned for a row, sorted within each row; `indptr` has b + 1 entries.
        candidates: (C,) int64, ascending and unique: the only items that are ranked. All by default.

    Returns:
        scores (b, k) float32 and ids (b, k) int64, best first, equal scores by smaller id; rows with fewer
        than k available items end in id -1 and score -inf.

    Raises:
        OptionError: k below 1.
        DataError: shapes, dtypes or devices that do not fit, candidates out of range, or a score that is NaN.
    """
    if not (rows.device.type == "cpu" and rows.dtype == torch.float32):
        return top_k_reference(rows, items, k, bias=bias, exclude=exclude, candidates=candidates)
    _check_tables(rows, items, k, bias, exclude, candidates)
    if candidates is None:
        return select(Product.of(rows, items, bias, None), k, exclude)
    # The kernels rank positions among the candidates, which order as the ids do.
    exclude = None if exclude is None else positions_among(exclude, candidates)
    scores, positions = select(Product.of(rows, items, bias, candidates), k, exclude)
    if len(candidates) == 0:
        return scores, positions
    return scores, torch.where(positions < 0, -1, candidates[positions])


def top_k_dense(scores: Tensor, k: int, exclude: Rows | None = None) -> tuple[Tensor, Tensor]:
    """Return the `k` best columns of every row of a block of scores, for models that have no item vectors.

    Args:
        scores: (b, I) floating; not changed.
        k: at least 1; may exceed I.
        exclude: columns never returned for a row, sorted within each row; `indptr` has b + 1 entries.

    Returns:
        scores (b, k) float32 and ids (b, k) int64, ordered and padded as by `top_k`.

    Raises:
        OptionError: k below 1.
        DataError: `scores` is no matrix, `exclude` has another number of rows, or a score is NaN.
    """
    if not (scores.device.type == "cpu" and scores.dtype == torch.float32):
        return top_k_dense_reference(scores, k, exclude)
    _check_dense(scores, k, exclude)
    return select(Dense(scores.detach()), k, exclude)


def ranked_at(
    rows: Tensor,
    items: Tensor,
    positions: Tensor,
    *,
    bias: Tensor | None = None,
    exclude: Rows | None = None,
) -> Tensor:
    """Return the items at some positions of every row's ranking, as far down each as that row asks.

    Args:
        rows: (b, d) floating, one vector a row.
        items: (I, d) of the same dtype and device.
        positions: (b, m) int64 from 0, padded with -1.
        bias: (I,) added to every row's scores.
        exclude: items that take no part in a row's ranking; `indptr` has b + 1 entries.

    Returns:
        ids (b, m) int64, in the ranking of `top_k`; -1 at padding and past the end of a ranking.

    Raises:
        DataError: shapes, dtypes or devices that do not fit, or a score that is NaN.
    """
    if not (rows.device.type == "cpu" and rows.dtype == torch.float32):
        return ranked_at_reference(rows, items, positions, bias=bias, exclude=exclude)
    _check_tables(rows, items, 1, bias, exclude, None)
    return select_at(Product.of(rows, items, bias, None), positions, exclude)


def ranked_at_reference(
    rows: Tensor,
    items: Tensor,
    positions: Tensor,
    *,
    bias: Tensor | None = None,
    exclude: Rows | None = None,
) -> Tensor:
    """The plain-torch twin of `ranked_at`, for any device and dtype; the same arguments and result."""
    if positions.numel() == 0:
        return torch.empty_like(positions)
    depth = max(1, int(positions.max()) + 1)
    ids = top_k_reference(rows, items, depth, bias=bias, exclude=exclude)[1]
    return ids.gather(1, positions.clamp(min=0)).masked_fill(positions < 0, -1)


def top_k_reference(
    rows: Tensor,
    items: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    exclude: Rows | None = None,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The plain-torch twin of `top_k`, for any device and dtype; the same arguments and result."""
    _check_tables(rows, items, k, bias, exclude, candidates)

    def block(start: int, stop: int, ids: Tensor) -> Tensor:
        scores = (rows[start:stop] @ items[ids].T).float()  # (r, t)
        return scores if bias is None else scores + bias[ids].float()

    ids = _all_ids(items.shape[0], rows.device) if candidates is None else candidates.to(rows.device)
    with torch.no_grad():
        return _select(block, rows.shape[0], ids, k, exclude)


def top_k_dense_reference(scores: Tensor, k: int, exclude: Rows | None = None) -> tuple[Tensor, Tensor]:
    """The plain-torch twin of `top_k_dense`, for any device and dtype; the same arguments and result."""
    _check_dense(scores, k, exclude)

    def block(start: int, stop: int, ids: Tensor) -> Tensor:
        return scores[start:stop, ids].float()

    with torch.no_grad():
        return _select(block, scores.shape[0], _all_ids(scores.shape[1], scores.device), k, exclude)


def _select(
    block: Callable[[int, int, Tensor], Tensor], num_rows: int, ids: Tensor, k: int, exclude: Rows | None
) -> tuple[Tensor, Tensor]:
    """Merge the best keys of one block of scores after the other; `ids` is ascending."""
    device = ids.device
    best = torch.full((num_rows, k), _PAD_KEY, dtype=torch.int64, device=device)
    nan = torch.zeros((), dtype=torch.bool, device=device)
    elements = _TWIN_ELEMENTS.get(device.type, _TWIN_ELEMENTS["cuda"])
    width = min(max(len(ids), 1), max(elements // 256, 2 * k))
    height = max(elements // width, 1)
    for start in range(0, num_rows, height):
        stop = min(start + height, num_rows)
        for tile in ids.split(width):
            scores = block(start, stop, tile)  # (r, t)
            nan |= scores.isnan().any()
            keys = _keys(scores, tile)
            if exclude is not None and len(tile) > 0:
                _drop(keys, tile, start, stop, exclude)
            pool = torch.cat([best[start:stop], keys], dim=1)
            best[start:stop] = pool.topk(k, dim=1).values
    if nan.item():
        raise DataError("scores contain NaN", "check that the model's training did not diverge")
    return _unpack(best)


def _keys(scores: Tensor, ids: Tensor) -> Tensor:
    """Whole numbers (r, t) that order as (higher score, smaller id), unique in a row: topk is exact."""
    bits = (scores + 0.0).view(torch.int32).long()  # + 0.0: minus zero equals zero
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)
    keys = (ordered << 32) | (_LOW - ids)
    return keys.masked_fill_(scores == -torch.inf, _PAD_KEY)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = keys >> 32
    bits = torch.where(ordered >= 0, ordered, ordered ^ 0x7FFFFFFF).to(torch.int32)
    pad = keys == _PAD_KEY
    scores = bits.view(torch.float32).masked_fill(pad, -torch.inf)
    return scores, (_LOW - (keys & _LOW)).masked_fill_(pad, -1)


def _drop(keys: Tensor, tile: Tensor, start: int, stop: int, exclude: Rows) -> None:
    indptr = exclude.indptr[start : stop + 1].to(keys.device)
    unwanted = exclude.items[int(indptr[0]) : int(indptr[-1])].to(keys.device).long()
    row = owners_of(indptr.diff())
    column = torch.searchsorted(tile, unwanted).clamp_(max=len(tile) - 1)
    here = tile[column] == unwanted
    keys[row[here], column[here]] = _PAD_KEY


def _all_ids(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


def _check_tables(
    rows: Tensor, items: Tensor, k: int, bias: Tensor | None, exclude: Rows | None, candidates: Tensor | None
) -> None:
    if rows.ndim != 2 or items.ndim != 2 or rows.shape[1] != items.shape[1]:
        raise DataError(
            f"expected row and item tables of one dim,"
            f" found shapes {tuple(rows.shape)} and {tuple(items.shape)}"
        )
    if rows.dtype != items.dtype or rows.device != items.device or not rows.is_floating_point():
        raise DataError(
            f"expected row and item tables of one floating dtype and device,"
            f" found {rows.dtype} on {rows.device} and {items.dtype} on {items.device}"
        )
    if bias is not None and bias.shape != items.shape[:1]:
        raise DataError(f"expected a bias of shape ({items.shape[0]},), found {tuple(bias.shape)}")
    if candidates is not None:
        _check_candidates(candidates, items.shape[0])
    _check_request(rows.shape[0], k, exclude)


def _check_dense(scores: Tensor, k: int, exclude: Rows | None) -> None:
    if scores.ndim != 2 or not scores.is_floating_point():
        raise DataError(
            f"expected floating scores (b, I), found {scores.dtype} of shape {tuple(scores.shape)}"
        )
    _check_request(scores.shape[0], k, exclude)


def _check_request(num_rows: int, k: int, exclude: Rows | None) -> None:
    if k < 1:
        raise OptionError(f"k must be at least 1, found {k}")
    if exclude is None:
        return
    indptr, count = exclude.indptr, len(exclude.items)
    if len(indptr) != num_rows + 1:
        raise DataError(f"expected excluded items of {num_rows} rows, found {len(indptr) - 1}")
    if bool((indptr.diff() < 0).any()) or int(indptr[0]) < 0 or int(indptr[-1]) > count:
        raise DataError(
            f"expected ascending row starts within the {count} excluded items,"
            f" found {int(indptr[0])}..{int(indptr[-1])}"
        )


def _check_candidates(candidates: Tensor, num_items: int) -> None:
    if candidates.ndim != 1 or candidates.dtype != torch.int64:
        raise DataError(
            f"expected int64 candidates (C,), found {candidates.dtype} of shape {tuple(candidates.shape)}"
        )
    if len(candidates) == 0:
        return
    if int(candidates[0]) < 0 or int(candidates[-1]) >= num_items:
        raise DataError(
            f"expected candidates in 0..{num_items - 1}, found {int(candidates[0])}..{int(candidates[-1])}"
        )
    if not bool((candidates.diff() > 0).all()):
        raise DataError("expected candidates ascending and unique", "pass candidates.unique()")
