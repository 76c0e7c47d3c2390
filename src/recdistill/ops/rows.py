"""Ragged rows of item ids, as the kernels take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """Item ids of b rows, compressed: row r holds `items[indptr[r] : indptr[r + 1]]`.

    Attributes:
        indptr: (b + 1,) int64, ascending.
        items: (n,) int32, ascending within each row.
    """

    indptr: Tensor
    items: Tensor
