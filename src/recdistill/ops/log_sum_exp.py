"""The log-sum-exp of each row's scores over the whole catalogue but some items, without rows × items scores.

    lse_r = log Σ_{i ∉ X_r} exp(rows_r · items_i)

One tile of scores is there at a time, and is computed again for the gradient, which is cheaper than to keep it in
memory. What is left out is masked: taking it from a finished sum would cancel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recdistill.ops.rows import Rows
from recdistill.ops.threads import spread, taken

_FOUR = 4
"""Rows that a kernel takes at a time."""

_NARROWEST, _WIDEST, _FLOATS = 256, 768, 6144
"""Fewest and most items of a tile, and how many numbers it should have: those stay in a core's first cache."""

_PARTS = 16
"""Ranges of rows or items that threads take: the same however many threads, and so are the sums over them."""

_INLINE_WORK = 1 << 22
"""Multiplications below which a second thread does not pay."""


def log_sum_exp_except(rows: Tensor, items: Tensor, exclude: Rows) -> Tensor:
    """Log-sum-exp of each row's scores over the items that are not excluded.

    Args:
        rows: (b, d) float.
        items: (I, d) of the same dtype and device.
        exclude: items left out of each row's sum; ``indptr`` has b + 1 entries.

    Returns:
        (b,); -inf, without gradient, where a row leaves out everything.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if rows.dim() != 2 or items.dim() != 2 or rows.shape[1] != items.shape[1]:
        raise ValueError(f"expected two tables of one dim, found {tuple(rows.shape)}, {tuple(items.shape)}")
    if len(exclude.indptr) != len(rows) + 1:
        raise ValueError(f"expected {len(rows)} rows to leave out, found {len(exclude.indptr) - 1}")
    if not all(table.is_cpu and table.dtype == torch.float32 for table in (rows, items)):
        return log_sum_exp_except_reference(rows, items, exclude)
    found: Tensor = _LogSumExp.apply(rows, items, *exclude)  # pyright: ignore[reportAssignmentType]
    return found


def log_sum_exp_except_reference(rows: Tensor, items: Tensor, exclude: Rows) -> Tensor:
    """Plain-torch twin of :func:`log_sum_exp_except`, for any device and dtype."""
    return log_sum_exp_blocks(lambda part: rows @ items[part].T, len(items), exclude)


def log_sum_exp_blocks(
    score: Callable[[slice], Tensor], num_items: int, exclude: Rows, elements: int = 1 << 24
) -> Tensor:
    """Log-sum-exp of scores that a function gives a block of items at a time; again for the gradient.

    Args:
        score: the scores (b, w) of a slice of the items.
        num_items: I.
        exclude: items left out of each row's sum.
        elements: scores in a block, at most.

    Returns:
        (b,), as :func:`log_sum_exp_except`.
    """
    owners, excluded = exclude.pairs

    def block(part: slice) -> Tensor:
        scores = score(part)
        inside = (excluded >= part.start) & (excluded < part.stop)
        mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        mask[owners[inside], excluded[inside] - part.start] = True
        mask |= mask.all(dim=1, keepdim=True)
        # a finite stand-in for -inf: no gradient becomes inf - inf
        return scores.masked_fill(mask, torch.finfo(scores.dtype).min / 4).logsumexp(dim=1)

    width = max(1, elements // max(len(exclude.indptr) - 1, 1))
    parts = [slice(start, min(start + width, num_items)) for start in range(0, num_items, width)]
    found: list[Tensor] = [checkpoint(block, part, use_reentrant=False) for part in parts]
    total = torch.stack(found).logsumexp(dim=0)
    return torch.where(total < torch.finfo(total.dtype).min / 8, -torch.inf, total)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, items: Tensor, indptr: Tensor, excluded: Tensor) -> Tensor:
        rows, items = rows.detach().contiguous(), items.detach().contiguous()
        found = _forward(rows, items, *_arrays(indptr, excluded))
        ctx.save_for_backward(rows, items, indptr, excluded, found)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        rows, items, indptr, excluded, found = ctx.saved_tensors
        shifts = found.masked_fill(found == -torch.inf, torch.inf)  # e^(score - inf) = 0
        by_row, by_item = _backward(rows, items, *_arrays(indptr, excluded), shifts, gradient.contiguous())
        return by_row, by_item, None, None


def _forward(rows: Tensor, items: Tensor, indptr: NDArray[np.int64], excluded: NDArray[np.int32]) -> Tensor:
    """Threads take ranges of rows."""
    from recdistill.ops.kernels import log_sum_exp as kernels

    padded, bounds = _by_four(rows, indptr)
    tops = np.full(len(padded), -np.inf, np.float32)
    totals = np.zeros(len(padded))
    width = _width(items)
    tiles = [(base, _columns(items[base : base + width])) for base in range(0, len(items), width)]
    height = max(_FOUR, -(-len(padded) // (_FOUR * _PARTS)) * _FOUR)
    starts = deque(range(0, len(padded), height))

    def work() -> None:
        while (start := taken(starts)) is not None:
            block = slice(start, start + height)
            own, own_bounds = padded[block], bounds[start : start + height + 1]
            cursors = own_bounds[:-1].copy()
            for base, tile in tiles:
                scores = torch.empty(_FOUR, tile.shape[1]).numpy()
                kernels.add_powers(
                    own,
                    tile,
                    scores,
                    scores.view(np.int32),
                    base,
                    own_bounds,
                    excluded,
                    cursors,
                    tops[block],
                    totals[block],
                )

    spread(work, _workers(rows, items), starts)
    with np.errstate(divide="ignore"):
        found = np.log(totals) + tops
    return torch.from_numpy(found[: len(rows)].astype(np.float32))


def _backward(
    rows: Tensor,
    items: Tensor,
    indptr: NDArray[np.int64],
    excluded: NDArray[np.int32],
    shifts: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """Threads take ranges of items, so that none adds to another's; sums by row are added up at last."""
    from recdistill.ops.kernels import log_sum_exp as kernels

    padded, bounds = _by_four(rows, indptr)
    extra = len(padded) - len(rows)
    shift, scale = F.pad(shifts, (0, extra)).numpy(), F.pad(gradient, (0, extra)).numpy()
    width = _width(items)
    num_tiles = max(1, -(-len(items) // width))
    num_parts = min(_PARTS, num_tiles)
    by_item = torch.empty(items.shape)
    by_row = torch.zeros(num_parts, *padded.shape)
    parts = deque(range(num_parts))

    def work() -> None:
        while (part := taken(parts)) is not None:
            low = num_tiles * part // num_parts * width
            high = min(num_tiles * (part + 1) // num_parts * width, len(items))
            cursors = bounds[:-1].copy()
            for base in range(low, high, width):
                columns = slice(base, min(base + width, high))
                tile = _columns(items[columns])
                by_column = torch.zeros(tile.shape)
                kernels.add_gradients(
                    padded,
                    tile,
                    torch.empty(_FOUR, tile.shape[1]).numpy(),
                    base,
                    bounds,
                    excluded,
                    cursors,
                    shift,
                    scale,
                    by_row[part].numpy(),
                    by_column.numpy(),
                )
                by_item[columns] = by_column.T

    spread(work, _workers(rows, items), parts)
    return by_row.sum(dim=0)[: len(rows)], by_item


def _by_four(rows: Tensor, indptr: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows of zeros, which leave nothing out, until there are a multiple of four."""
    missing = -len(rows) % _FOUR
    return F.pad(rows, (0, 0, 0, missing)).numpy(), np.pad(indptr, (0, missing), mode="edge")


def _columns(items: Tensor) -> NDArray[np.float32]:
    """A tile (d, w) of w items."""
    return items.T.contiguous().numpy()


def _width(items: Tensor) -> int:
    """How many items a tile has, a multiple of 64: rows of numbers then begin with a line of the cache."""
    return max(_NARROWEST, min(_WIDEST, _FLOATS // max(items.shape[1], 1) // 64 * 64))


def _workers(rows: Tensor, items: Tensor) -> int:
    work = rows.numel() * len(items)
    return 1 if work < _INLINE_WORK else max(1, min(torch.get_num_threads(), len(rows) // 16))


def _arrays(indptr: Tensor, excluded: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    return indptr.long().contiguous().numpy(), excluded.int().contiguous().numpy()
