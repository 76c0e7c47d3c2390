"""Cross entropy of a softmax over the whole catalogue, a tile of scores at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recdistill.ops.tiles import tile_rows

_TILE_SCORES = 1 << 20
"""Scores held at once on a CPU, but for tiles of the least rows."""


def softmax_cross_entropy(rows: Tensor, items: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """mean over n of −s_t + log Σ_j exp(s_j), with s = rows · itemsᵀ + bias.

    The scores of a tile of rows are made, turned into their gradient and left, in the forward pass: three matrix
    products in all, and never more than a tile in memory. Under autocast the products run in its type.

    Args:
        rows: (n, d), n at least 1.
        items: (I, d).
        targets: (n,) int64 in [0, I).
        bias: (I,), or None.

    Returns:
        Scalar.
    """
    loss: Tensor = _SoftmaxCrossEntropy.apply(rows, items, targets, bias)  # pyright: ignore[reportAssignmentType]
    return loss


def softmax_cross_entropy_reference(
    rows: Tensor, items: Tensor, targets: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Twin of :func:`softmax_cross_entropy` that holds all scores."""
    scores = rows @ items.T
    return F.cross_entropy(scores if bias is None else scores + bias, targets)


class _SoftmaxCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, items: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
        wanted, device = ctx.needs_input_grad, rows.device
        low = rows.dtype
        if torch.is_autocast_enabled(device.type):
            low = torch.get_autocast_dtype(device.type)
        full = torch.float64 if rows.dtype == torch.float64 else torch.float32
        with torch.autocast(device.type, enabled=False):
            left, right = rows.to(low), items.to(low)
            across = right.T.contiguous()  # products with it and sums into its shape are twice as fast
            by_row = torch.empty(rows.shape, dtype=full, device=device) if wanted[0] else None
            by_item = torch.zeros(across.shape, dtype=full, device=device) if wanted[1] else None
            by_bias = torch.zeros_like(bias) if bias is not None and wanted[3] else None
            total = torch.zeros((), dtype=torch.float64, device=device)
            size = tile_rows(len(items), device, _TILE_SCORES)
            buffer = torch.empty(min(size, len(rows)), len(items), dtype=full, device=device)
            for start in range(0, len(rows), size):
                own = slice(start, min(start + size, len(rows)))
                scores, target = buffer[: own.stop - start], targets[own, None]
                if low == full:
                    torch.mm(left[own], across, out=scores)
                else:
                    scores.copy_(left[own] @ across)
                if bias is not None:
                    scores += bias
                largest = scores.amax(dim=1)
                total += (largest - scores.gather(1, target)[:, 0]).sum(dtype=torch.float64)
                shares = torch.softmax(scores, dim=1, out=scores)
                # the largest share is 1 / Σ exp(s − largest), which never underflows
                total -= shares.amax(dim=1).log().sum(dtype=torch.float64)
                shares.scatter_add_(1, target, shares.new_full((), -1.0).expand(target.shape))
                small = shares.to(low)
                if by_row is not None:
                    by_row[own] = small @ right
                if by_item is not None and low == full:
                    by_item.addmm_(left[own].T, small)
                elif by_item is not None:
                    by_item += left[own].T @ small
                if by_bias is not None:
                    by_bias += shares.sum(dim=0)
        by_item = None if by_item is None else by_item.T.contiguous()
        ctx.save_for_backward(by_row, by_item, by_bias)
        ctx.count = len(rows)
        return (total / len(rows)).to(full)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, Tensor | None]:
        scale = gradient / ctx.count
        by_row, by_item, by_bias = (None if g is None else g * scale for g in ctx.saved_tensors)
        return by_row, by_item, None, by_bias
