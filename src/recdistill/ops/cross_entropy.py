"""Cross entropy of a softmax over the whole catalogue, a tile of scores at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_TILE_ROWS = 256
_TILE_SCORES = 1 << 22
"""Scores held at once; a tile has at least 16 rows whatever the catalogue."""


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
        wanted = ctx.needs_input_grad
        device = rows.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
        with torch.autocast(device, enabled=False):
            left, right = rows.to(low), items.to(low)
            accumulate = torch.float64 if rows.dtype == torch.float64 else torch.float32
            by_row = torch.empty(rows.shape, dtype=accumulate, device=rows.device) if wanted[0] else None
            by_item = torch.zeros(items.shape, dtype=accumulate, device=rows.device) if wanted[1] else None
            by_bias = torch.zeros_like(bias) if bias is not None and wanted[3] else None
            total = torch.zeros((), dtype=torch.float64, device=rows.device)
            for part in torch.arange(len(rows)).split(_tile(len(items))):
                own = slice(int(part[0]), int(part[-1]) + 1)
                scores = (left[own] @ right.T).to(accumulate)  # (tile, I)
                if bias is not None:
                    scores += bias
                target = targets[own, None]
                largest = scores.amax(dim=1)
                total += (largest - scores.gather(1, target)[:, 0]).sum(dtype=torch.float64)
                shares = torch.softmax(scores, dim=1, out=scores)
                # the largest share is 1 / Σ exp(s − largest), which never underflows
                total -= shares.amax(dim=1).log().sum(dtype=torch.float64)
                shares.scatter_add_(1, target, shares.new_full((), -1.0).expand(target.shape))
                if by_row is None and by_item is None and by_bias is None:
                    continue
                small = shares.to(low)
                if by_row is not None:
                    by_row[own] = small @ right
                if by_item is not None:
                    if low == accumulate:
                        by_item.addmm_(small.T, left[own])
                    else:
                        by_item += small.T @ left[own]
                if by_bias is not None:
                    by_bias += shares.sum(dim=0)
        ctx.save_for_backward(by_row, by_item, by_bias)
        ctx.count = len(rows)
        return (total / len(rows)).to(accumulate)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, Tensor | None]:
        scale = gradient / ctx.count
        by_row, by_item, by_bias = (None if g is None else g * scale for g in ctx.saved_tensors)
        return by_row, by_item, None, by_bias


def _tile(num_items: int) -> int:
    return max(16, min(_TILE_ROWS, _TILE_SCORES // max(num_items, 1)))
