"""Sums of rectified units over pairs, with gradients: one hidden layer of a network over users and items.

The layer's inputs are a part of each user and a part of each item; gathering them for every pair, and adding their
gradients back, is most of what such a network costs. The kernels read each part where it lies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recdistill.ops.rows import check_range


def rectified_at(row_table: Tensor, item_table: Tensor, weight: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Weighted sums of rectified units of rows with the items listed for each of them.

    Args:
        row_table: (R, width) float, parts of rows.
        item_table: (I, width) float, parts of items.
        weight: (width,) float.
        rows: (b,) int64 in [0, R), repeats allowed.
        ids: (b, n) int64 in [0, I), or -1: 0 and no gradient.

    Returns:
        (b, n) sums ``Σ_k weight[k] · max(0, row_table[rows[i], k] + item_table[ids[i, j], k])``. Gradients are dense.

    Raises:
        ValueError: shapes that do not fit together.
        IndexError: a row or item out of range.
    """
    shapes = [tuple(table.shape) for table in (row_table, item_table, weight)]
    if row_table.dim() != 2 or item_table.dim() != 2 or {shape[-1:] for shape in shapes} != {shapes[2]}:
        raise ValueError(f"expected tables (R, width), (I, width) and weights (width,), found {shapes}")
    if rows.dim() != 1 or ids.dim() != 2 or len(rows) != len(ids):
        raise ValueError(
            f"expected rows (b,) and ids (b, n), found {tuple(rows.shape)} and {tuple(ids.shape)}"
        )
    if not all(table.is_cpu and table.dtype == torch.float32 for table in (row_table, item_table, weight)):
        return rectified_at_reference(row_table, item_table, weight, rows, ids)
    check_range("row", rows, len(row_table))
    found: Tensor = _RectifiedAt.apply(row_table, item_table, weight, rows, ids)  # pyright: ignore[reportAssignmentType]
    return found


def rectified_at_reference(
    row_table: Tensor, item_table: Tensor, weight: Tensor, rows: Tensor, ids: Tensor
) -> Tensor:
    """Plain-torch twin of :func:`rectified_at`."""
    units = (row_table[rows][:, None] + item_table[ids.clamp(min=0)]).relu()  # (b, n, width)
    return (units @ weight).masked_fill(ids < 0, 0.0)


class _RectifiedAt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, row_table: Tensor, item_table: Tensor, weight: Tensor, rows: Tensor, ids: Tensor
    ) -> Tensor:
        from recdistill.ops.kernels import rectified as kernels
        from recdistill.ops.kernels import use_torch_threads

        row_table, item_table, weight = (part.contiguous() for part in (row_table, item_table, weight))
        rows, ids = rows.long().contiguous(), ids.long().contiguous()
        ctx.save_for_backward(row_table, item_table, weight, rows, ids)
        found = torch.empty(ids.shape)
        use_torch_threads(ids.numel() * len(weight))
        in_range = kernels.sums(
            row_table.numpy(), item_table.numpy(), weight.numpy(), rows.numpy(), ids.numpy(), found.numpy()
        )
        if not in_range:
            check_range("item", ids[ids != -1], len(item_table))
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        from recdistill.ops.kernels import rectified as kernels
        from recdistill.ops.kernels import use_torch_threads

        row_table, item_table, weight, rows, ids = ctx.saved_tensors
        read = gradient.contiguous().numpy(), row_table.numpy(), item_table.numpy(), rows.numpy(), ids.numpy()
        threads = use_torch_threads(ids.numel() * len(weight))
        by_row = by_item = by_weight = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            counts, sums = torch.empty(2, len(rows), len(weight))
            kernels.row_gradients(*read, counts.numpy(), sums.numpy())
            by_row = torch.zeros_like(row_table).index_add_(0, rows, counts).mul_(weight)
            by_weight = sums.sum(dim=0)
        if ctx.needs_input_grad[1]:
            by_item = torch.empty_like(item_table)
            kernels.item_gradient(*read, threads, by_item.numpy())
            by_item.mul_(weight)
        needed = ctx.needs_input_grad
        return by_row if needed[0] else None, by_item, by_weight if needed[2] else None, None, None
