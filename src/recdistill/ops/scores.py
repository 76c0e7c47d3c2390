"""Scores of given items for given users, with gradients, without gathering the items' vectors.

Gathering builds a users × items × dim tensor, and adding its gradient back is slower still. The kernels read
each vector where it lies, and each thread adds up the gradients of its own range of items.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recdistill.ops.gradients import grouped
from recdistill.ops.rows import check_range


def scores_at(user_table: Tensor, item_table: Tensor, users: Tensor, ids: Tensor) -> Tensor:
    """Dot products of users with the items listed for each of them.

    The gradient of a leaf table is row-sparse (a sparse COO tensor, rows may repeat) where fewer rows are
    read than the table has, else dense; that of a table computed from others is always dense.

    Args:
        user_table: (R, d) float.
        item_table: (I, d) float.
        users: (b,) int64 in [0, R), repeats allowed.
        ids: (b, n) int64 in [0, I), or -1: score 0 and no gradient.

    Returns:
        (b, n) scores ``user_table[users[i]] · item_table[ids[i, j]]``.

    Raises:
        ValueError: shapes that do not fit together.
        IndexError: a user or item out of range.
    """
    if user_table.dim() != 2 or item_table.dim() != 2 or user_table.shape[1] != item_table.shape[1]:
        raise ValueError(
            f"expected two tables of one dim, found {_shape(user_table)} and {_shape(item_table)}"
        )
    if users.dim() != 1 or ids.dim() != 2 or len(users) != len(ids):
        raise ValueError(f"expected users (b,) and ids (b, n), found {_shape(users)} and {_shape(ids)}")
    if not all(table.is_cpu and table.dtype == torch.float32 for table in (user_table, item_table)):
        return scores_at_reference(user_table, item_table, users, ids)
    check_range("user", users, len(user_table))
    scores: Tensor = _ScoresAt.apply(user_table, item_table, users, ids)  # pyright: ignore[reportAssignmentType]
    return scores


def scores_at_reference(user_table: Tensor, item_table: Tensor, users: Tensor, ids: Tensor) -> Tensor:
    """Plain-torch twin of :func:`scores_at`; its gradients are dense."""
    vectors = item_table[ids.clamp(min=0)]  # (b, n, d)
    scores = torch.einsum("bd,bnd->bn", user_table[users], vectors)
    return scores.masked_fill(ids < 0, 0.0)


class _ScoresAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, user_table: Tensor, item_table: Tensor, users: Tensor, ids: Tensor) -> Tensor:
        from recdistill.ops.kernels import scores as kernels
        from recdistill.ops.kernels import use_torch_threads

        ctx.row_sparse = (
            user_table.is_leaf and users.numel() < len(user_table),
            item_table.is_leaf and ids.numel() < len(item_table),
        )
        user_table, item_table = user_table.contiguous(), item_table.contiguous()
        users, ids = users.long().contiguous(), ids.long().contiguous()
        ctx.save_for_backward(user_table, item_table, users, ids)
        scores = torch.empty(ids.shape)
        use_torch_threads(ids.numel() * user_table.shape[1])
        in_range = kernels.scores(
            user_table.numpy(), item_table.numpy(), users.numpy(), ids.numpy(), scores.numpy()
        )
        if not in_range:
            check_range("item", ids[ids != -1], len(item_table))
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        user_table, item_table, users, ids = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_user = by_item = None
        if ctx.needs_input_grad[0]:
            by_user = _user_gradient(gradient, user_table, item_table, users, ids, ctx.row_sparse[0])
        if ctx.needs_input_grad[1]:
            by_item = _item_gradient(gradient, user_table, item_table, users, ids, ctx.row_sparse[1])
        return by_user, by_item, None, None


def _user_gradient(
    gradient: Tensor, user_table: Tensor, item_table: Tensor, users: Tensor, ids: Tensor, row_sparse: bool
) -> Tensor:
    from recdistill.ops.kernels import scores as kernels
    from recdistill.ops.kernels import use_torch_threads

    threads = use_torch_threads(ids.numel() * item_table.shape[1] + (0 if row_sparse else user_table.numel()))
    values = torch.empty((len(users), user_table.shape[1]))
    kernels.user_gradient(gradient.numpy(), item_table.numpy(), ids.numpy(), values.numpy())
    if row_sparse:
        return _row_sparse(users, values, user_table.shape)
    dense = torch.empty(user_table.shape)
    kernels.add_rows(values.numpy(), users.numpy(), threads, dense.numpy())
    return dense


def _item_gradient(
    gradient: Tensor, user_table: Tensor, item_table: Tensor, users: Tensor, ids: Tensor, row_sparse: bool
) -> Tensor:
    from recdistill.ops.kernels import scores as kernels
    from recdistill.ops.kernels import use_torch_threads

    threads = use_torch_threads(ids.numel() * item_table.shape[1] + (0 if row_sparse else item_table.numel()))
    if not row_sparse:
        dense = torch.empty(item_table.shape)
        kernels.item_gradient(
            gradient.numpy(), user_table.numpy(), users.numpy(), ids.numpy(), threads, dense.numpy()
        )
        return dense
    with grouped(ids.flatten(), len(item_table)) as places:
        values = torch.empty((len(places.rows), item_table.shape[1]))
        kernels.touched_item_gradient(
            gradient.numpy(), user_table.numpy(), users.numpy(), places, threads, values.numpy()
        )
        return _row_sparse(torch.from_numpy(places.rows), values, item_table.shape)


def _row_sparse(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    return torch.sparse_coo_tensor(rows.unsqueeze(0), values, shape, check_invariants=False)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
