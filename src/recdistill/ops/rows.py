"""Rows of item ids in CSR form, membership in them, and unique ids."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Lists of item ids of different lengths, one after the other.

    Args:
        indptr: (b + 1,) int64, where each row starts; the last entry is the number of ids.
        items: (nnz,) int32, the ids, ascending and without repeats inside each row.
    """

    indptr: Tensor
    items: Tensor


def lower_bound(indptr: Tensor, items: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Count, for each (row, id), the row's items that are smaller than the id.

    Args:
        indptr: (R + 1,) int64.
        items: (nnz,) integers, ascending inside each row.
        rows: (...) int64 in [0, R).
        ids: (...) int64, the same shape.

    Returns:
        (...) int64.
    """
    low = indptr[rows]
    start = low
    high = indptr[rows + 1]
    if items.numel() == 0 or low.numel() == 0:
        return torch.zeros_like(low)
    for _ in range(int((high - low).max()).bit_length()):
        middle = (low + high) >> 1
        below = items[middle.clamp(max=items.numel() - 1)].to(ids.dtype) < ids
        open_ = low < high
        low = torch.where(open_ & below, middle + 1, low)
        high = torch.where(open_ & ~below, middle, high)
    return low - start


def contains(indptr: Tensor, items: Tensor, users: Tensor, ids: Tensor) -> Tensor:
    """Say for each (user, id) whether the id is in the user's row.

    Args:
        indptr: (U + 1,) int64.
        items: (nnz,) int32, ascending inside each row.
        users: (b,) int64 in [0, U).
        ids: (b,) or (b, n) int64; ids that are no item, such as the pad -1, are in no row.

    Returns:
        bool, of the shape of ``ids``.
    """
    return contains_reference(indptr, items, users, ids)


def contains_reference(indptr: Tensor, items: Tensor, users: Tensor, ids: Tensor) -> Tensor:
    """Plain-torch twin of :func:`contains`."""
    rows = users.unsqueeze(-1).expand_as(ids) if ids.dim() > users.dim() else users
    if items.numel() == 0:
        return torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    position = indptr[rows] + lower_bound(indptr, items, rows, ids)
    found = items[position.clamp(max=items.numel() - 1)].to(ids.dtype) == ids
    return found & (position < indptr[rows + 1])


def unique_inverse(ids: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """Return the distinct ids in ascending order, and each id's index among them.

    Args:
        ids: (...) int64 in [0, bound).
        bound: how many ids there can be (number of users or of items).

    Returns:
        unique ids (m,) int64, and the inverse of the shape of ``ids``, int64: ``unique[inverse] == ids``.
    """
    del bound
    return unique_inverse_reference(ids)


def unique_inverse_reference(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Plain-torch twin of :func:`unique_inverse`."""
    unique, inverse = torch.unique(ids, sorted=True, return_inverse=True)
    return unique, inverse
