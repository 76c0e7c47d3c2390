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
from torch.utils.checkpoint import checkpoint

from recdistill.ops.rows import Rows
from recdistill.ops.threads import spread, taken

_HEIGHT, _WIDTH = 256, 1024
"""Most rows and columns of a thread's tile of float32: 1 MiB, which stays in its cache."""

_PARTS = 16
"""Ranges of items that threads take in the backward pass: the same however many threads, and so are the sums."""

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
    rows = len(exclude.indptr) - 1
    owners = torch.repeat_interleave(torch.arange(rows, device=exclude.indptr.device), exclude.indptr.diff())
    excluded = exclude.items.long()

    def block(part: slice) -> Tensor:
        scores = score(part)
        inside = (excluded >= part.start) & (excluded < part.stop)
        mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        mask[owners[inside], excluded[inside] - part.start] = True
        mask |= mask.all(dim=1, keepdim=True)
        # a finite stand-in for -inf: no gradient becomes inf - inf
        return scores.masked_fill(mask, torch.finfo(scores.dtype).min / 4).logsumexp(dim=1)

    width = max(1, elements // max(rows, 1))
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
    """Threads take blocks of rows."""
    from recdistill.ops.kernels import log_sum_exp as kernels

    tops = torch.full((len(rows),), -torch.inf)
    totals = torch.zeros(len(rows), dtype=torch.float64)
    blocks = max(1, -(-2 * len(rows) // _HEIGHT))  # half the height: threads get equally many
    height = max(1, -(-len(rows) // blocks))
    starts = deque(range(0, len(rows), height))

    def work() -> None:
        buffer = torch.empty(height * min(_WIDTH, len(items)))
        while (start := taken(starts)) is not None:
            block = slice(start, start + height)
            own = rows[block]
            cursors = indptr[block].copy()[: len(own)]
            for base in range(0, len(items), _WIDTH):
                tile = _tile(own, items[base : base + _WIDTH], buffer).numpy()
                kernels.add_powers(
                    tile,
                    tile.view(np.int32),
                    base,
                    indptr[start : start + height + 1],
                    excluded,
                    cursors,
                    tops[block].numpy(),
                    totals[block].numpy(),
                )

    spread(work, _workers(rows, items), starts)
    return (totals.log() + tops.double()).float()


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

    num_parts = min(_PARTS, max(1, len(items) // _WIDTH))
    by_item = torch.zeros(items.shape[1], len(items))  # transposed, which its products are faster for
    by_row = torch.zeros(num_parts, *rows.shape)
    parts = deque(range(num_parts))
    height = max(1, min(_HEIGHT, len(rows)))

    def work() -> None:
        buffer = torch.empty(height * min(_WIDTH, len(items)))
        while (part := taken(parts)) is not None:
            low, high = len(items) * part // num_parts, len(items) * (part + 1) // num_parts
            cursors = indptr[:-1].copy()
            for base in range(low, high, _WIDTH):
                columns = slice(base, min(base + _WIDTH, high))
                for start in range(0, len(rows), height):
                    block = slice(start, start + height)
                    own = rows[block]
                    tile = _tile(own, items[columns], buffer)
                    kernels.weigh(
                        tile.numpy(),
                        base,
                        indptr[start : start + height + 1],
                        excluded,
                        cursors[block],
                        shifts[block].numpy(),
                        gradient[block].numpy(),
                    )
                    by_row[part, block].addmm_(tile, items[columns])
                    by_item[:, columns].addmm_(own.T, tile)

    spread(work, _workers(rows, items), parts)
    return by_row.sum(dim=0), by_item.T.contiguous()


def _tile(rows: Tensor, items: Tensor, buffer: Tensor) -> Tensor:
    """The scores (h, w) of some rows and items, in ``buffer``."""
    tile = buffer[: len(rows) * len(items)].view(len(rows), len(items))
    return torch.mm(rows, items.T, out=tile)


def _workers(rows: Tensor, items: Tensor) -> int:
    work = rows.numel() * len(items)
    return 1 if work < _INLINE_WORK else max(1, min(torch.get_num_threads(), len(rows) // 16))


def _arrays(indptr: Tensor, excluded: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    return indptr.long().contiguous().numpy(), excluded.int().contiguous().numpy()
