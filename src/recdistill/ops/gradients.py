"""Dense and row-sparse gradients of tables, and the places of a row-sparse one grouped by row."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.ops.rows import check_range

Gradient = Tensor | tuple[Tensor, Tensor]
"""A dense gradient of the parameter's shape, a sparse COO tensor over rows (coalesced or not), or the pair
(ids (n,) int64, values (n, ...)); repeated ids add up, and ids of -1 are left out."""


class Places(NamedTuple):
    """Where a row-sparse gradient has values for each row: rows[u] at order[starts[u]:starts[u + 1]].

    Attributes:
        slots: (R,) int32, u of each row, -1 for rows without values.
        rows: (m,) int64, distinct, ascending: tables are read from their start to their end.
        starts: (m + 1,) int64.
        order: (n,) int64, places in the values, ascending inside each row.
    """

    slots: NDArray[np.int32]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    order: NDArray[np.int64]


_KEPT_SIZES = 4
_kept: dict[int, NDArray[np.int32]] = {}
"""Slots by number of rows, all -1, for the next call: filling them anew would cost all rows at each step. Those of the
sizes that were used last, in that order."""


@contextmanager
def grouped(ids: Tensor, num_rows: int) -> Generator[Places]:
    """Group the places of ids by row, for as long as the context lasts.

    Args:
        ids: (n,) integers in [-1, num_rows).
        num_rows: rows of the table.

    Raises:
        IndexError: an id out of range.
    """
    from recdistill.ops.kernels import optim as kernels

    slots = _kept.pop(num_rows, None)
    if slots is None:
        slots = np.full(num_rows, -1, np.int32)
    rows = np.empty(len(ids), np.int64)
    starts = np.empty(len(ids) + 1, np.int64)
    order = np.empty(len(ids), np.int64)
    count = kernels.group(ids.long().contiguous().numpy(), slots, rows, starts, order)
    try:
        if count < 0:
            check_range("row", ids[ids != -1], num_rows)
        yield Places(slots, rows[:count], starts, order)
    finally:
        kernels.clear(rows, count, slots)
        _kept[num_rows] = slots
        for oldest in list(_kept)[:-_KEPT_SIZES]:
            _kept.pop(oldest, None)


def row_sparse(param: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor] | None:
    """The row-sparse form (ids, values) of a gradient, or None for a dense one.

    Raises:
        ValueError: a gradient that does not fit the parameter.
    """
    if isinstance(gradient, tuple):
        ids, values = gradient
    elif gradient.layout == torch.sparse_coo:
        # The public accessors refuse uncoalesced tensors, and the kernels add repeated rows up themselves.
        ids = gradient._indices()[0]  # pyright: ignore[reportPrivateUsage]
        values = gradient._values()  # pyright: ignore[reportPrivateUsage]
    elif gradient.shape == param.shape:
        return None
    else:
        raise ValueError(f"expected a gradient of shape {_shape(param)}, found {_shape(gradient)}")
    expected = (len(ids), *param.shape[1:])
    if values.shape != expected:
        raise ValueError(f"expected the gradient's values of shape {expected}, found {_shape(values)}")
    return ids, values.detach()


def as_dense(param: Tensor, gradient: Gradient) -> Tensor:
    """A gradient of the parameter's shape."""
    pair = row_sparse(param, gradient)
    if pair is None:
        assert isinstance(gradient, Tensor)
        return gradient.detach()
    ids, values = pair
    kept = ids >= 0
    return torch.zeros_like(param).index_add_(0, ids[kept], values[kept])


def as_row_sparse(param: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
    """A gradient as ids and values: as they come, or all rows of a dense one."""
    pair = row_sparse(param, gradient)
    if pair is not None:
        return pair
    dense = as_dense(param, gradient)
    return torch.arange(len(dense), device=dense.device), dense


def summed_rows(param: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
    """The rows whose summed gradient has a non-zero element, ascending, and their sums."""
    ids, values = as_row_sparse(param, gradient)
    kept = ids >= 0
    rows, inverse = torch.unique(ids[kept], return_inverse=True)
    sums = param.new_zeros((len(rows), *param.shape[1:])).index_add_(0, inverse, values[kept])
    touched = (sums != 0).flatten(1).any(dim=1) if sums.dim() > 1 else sums != 0
    return rows[touched], sums[touched]


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
