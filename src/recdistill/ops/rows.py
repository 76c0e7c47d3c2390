"""Rows of item ids in CSR form, membership in them, and unique ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_MARKING = 64
"""A table of all ids is made where there are at most this many times more of them than are given."""


class Rows(NamedTuple):
    """Lists of item ids of different lengths, one after the other.

    Args:
        indptr: (b + 1,) int64, where each row starts; the last entry is the number of ids.
        items: (nnz,) int32, the ids, ascending and without repeats inside each row.
    """

    indptr: Tensor
    items: Tensor

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """The row and the id of each entry, shape ``(nnz,)`` each, int64."""
        return owners_of(self.indptr.diff()), self.items.long()


def owners_of(counts: Tensor) -> Tensor:
    """The row of each entry, where rows of ``counts`` (b,) entries lie one after the other: ``(Σ counts,)`` int64."""
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


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

    Raises:
        IndexError: a user out of range.
    """
    if not ids.is_cpu:
        return contains_reference(indptr, items, users, ids)
    check_range("user", users, len(indptr) - 1)
    from recdistill.ops.kernels import rows as kernels
    from recdistill.ops.kernels import use_torch_threads

    found = torch.empty(ids.shape, dtype=torch.bool)
    if found.numel() == 0:
        return found
    use_torch_threads(8 * ids.numel())  # steps of a binary search
    kernels.contains(
        indptr.long().contiguous().numpy(),
        items.int().contiguous().numpy(),
        users.long().contiguous().numpy(),
        ids.long().reshape(len(users), -1).contiguous().numpy(),
        found.view(len(users), -1).numpy(),
    )
    return found


def contains_reference(indptr: Tensor, items: Tensor, users: Tensor, ids: Tensor) -> Tensor:
    """Plain-torch twin of :func:`contains`."""
    rows = users.unsqueeze(-1).expand_as(ids) if ids.dim() > users.dim() else users
    if items.numel() == 0:
        return torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    position = indptr[rows] + lower_bound(indptr, items, rows, ids)
    found = items[position.clamp(max=items.numel() - 1)].to(ids.dtype) == ids
    return found & (position < indptr[rows + 1])


def positions_among(rows: Rows, candidates: Tensor) -> Rows:
    """The positions among ``candidates`` (ascending, unique ids) of those ids of each row that are among them."""
    ids = rows.items.long()
    if len(candidates) == 0:
        return Rows(torch.zeros_like(rows.indptr), rows.items[:0])
    last = int(candidates[-1])
    if last < _MARKING * len(ids):
        places = torch.full((last + 2,), -1, dtype=torch.int64, device=ids.device)
        places[candidates] = torch.arange(len(candidates), device=ids.device)
        positions = places[ids.clamp(max=last + 1)]
        present = positions >= 0
    else:
        positions = torch.searchsorted(candidates, ids).clamp_(max=len(candidates) - 1)
        present = candidates[positions] == ids
    before = torch.cat([present.new_zeros(1, dtype=torch.int64), present.cumsum(0)])
    return Rows(before[rows.indptr], positions[present].int())


def unique_inverse(ids: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """Return the distinct ids in ascending order, and each id's index among them.

    Args:
        ids: (...) int64 in [0, bound).
        bound: how many ids there can be (number of users or of items).

    Returns:
        unique ids (m,) int64, and the inverse of the shape of ``ids``, int64: ``unique[inverse] == ids``.

    Raises:
        IndexError: an id out of range.
    """
    if ids.is_cpu and 0 < bound <= _MARKING * ids.numel():
        return _unique_inverse_by_marking(ids, bound)
    check_range("id", ids, bound)
    return unique_inverse_reference(ids)


def _unique_inverse_by_marking(ids: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    from recdistill.ops.kernels import rows as kernels

    unique = torch.empty(min(bound, ids.numel()) + 1, dtype=torch.int64)
    inverse = torch.empty(ids.shape, dtype=torch.int64)
    count = kernels.unique_inverse(
        ids.long().flatten().numpy(),
        np.zeros(bound, np.int64),
        unique.numpy(),
        inverse.view(-1).numpy(),
    )
    if count < 0:
        check_range("id", ids, bound)
    return unique[:count], inverse


def unique_inverse_reference(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Plain-torch twin of :func:`unique_inverse`."""
    unique, inverse = torch.unique(ids, sorted=True, return_inverse=True)
    return unique, inverse


def check_range(what: str, ids: Tensor, count: int) -> None:
    """Raise IndexError unless all ids are in [0, count): kernels trust what they are given.

    Args:
        what: what the ids are called, in the singular.
        ids: integers of any shape.
        count: how many there are.
    """
    if ids.numel() == 0:
        return
    low, high = torch.aminmax(ids)
    if low < 0 or high >= count:
        raise IndexError(f"expected {what} indices in 0..{count - 1}, found {int(low)}..{int(high)}")
