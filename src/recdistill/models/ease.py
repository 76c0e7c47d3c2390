"""EASE: a linear autoencoder over items, fitted at once.

Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.

    min over B of ‖X − X B‖² + λ ‖B‖²  with diag(B) = 0
    P = (XᵀX + λ I)⁻¹,  B_ij = −P_ij / P_jj,  B_jj = 0                                             (eq. 8)
    s_ui = Σ_{j ∈ D_u} B_ji

X: the binary users × items matrix, kept as sparse rows; D_u: u's train items. XᵀX is made, factorised (Cholesky) and
inverted inside one items × items block of float32, the only one of its size. The paper has no sparse B: with
``num_weights`` only the n largest of each column's weights (in absolute value) are stored.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import torch
from pydantic import Field
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.errors import OptionError
from recdistill.files import size_text
from recdistill.models.history import HistoryModel, binary_matrix

_ROWS_AT_ONCE = 1024


class EASE(HistoryModel):
    """Item-to-item weights in closed form.

    Args:
        regularisation: λ, above 0 (paper: 200 to 1,000 by the data).
        num_weights: largest weights of a column that are stored, at least 1; None stores all items × items.
        max_items: the largest catalogue that is fitted, at least 1: the block takes 4 bytes × items².
    """

    tables = ("weights", "rows", "values")

    @validated
    def __init__(
        self,
        *,
        regularisation: Annotated[float, Field(gt=0)] = 200.0,
        num_weights: Annotated[int, Field(ge=1)] | None = None,
        max_items: Annotated[int, Field(ge=1)] = 30_000,
    ) -> None:
        super().__init__()
        self.regularisation = regularisation
        self.num_weights = num_weights
        self.max_items = max_items

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        count = interactions.num_items
        if count > self.max_items:
            raise OptionError(
                f"ease holds a block of items x items: {count:,} items take {size_text(4 * count**2)};"
                f" max_items is {self.max_items:,}",
                f"raise it with --set model.max_items={count}, or choose itemknn",
            )
        super().build(interactions, generator)
        if self.num_weights is None:
            self.register_buffer("weights", torch.empty(count, count))
            return
        kept = min(self.num_weights, count)
        self.register_buffer("rows", torch.empty(count, kept, dtype=torch.int32))
        self.register_buffer("values", torch.empty(count, kept))

    def announcement(self, interactions: Interactions) -> str:
        count = interactions.num_items
        kept = "all of it is stored"
        if self.num_weights is not None:
            kept = f"{size_text(8 * count * min(self.num_weights, count))} of it are stored"
        return f"ease: a block of {count:,} x {count:,} items, {size_text(4 * count**2)} of memory; {kept}"

    def fit_weights(self, interactions: Interactions) -> None:
        if self.num_weights is None:
            stored = self.get_buffer("weights")
            block = stored if stored.is_cpu else torch.empty(stored.shape)
            weights_of(inverse_of_gram(interactions, self.regularisation, block))
            stored.copy_(block)
            return
        inverse = inverse_of_gram(
            interactions, self.regularisation, torch.empty(self.num_items, self.num_items)
        )
        ids, values = largest_weights(inverse, self.get_buffer("rows").shape[1])
        self.get_buffer("rows").copy_(ids)
        self.get_buffer("values").copy_(values)

    def item_weights(self) -> Tensor | tuple[Tensor, Tensor]:
        if self.num_weights is None:
            return self.get_buffer("weights")
        return self.get_buffer("rows"), self.get_buffer("values")


def inverse_of_gram(interactions: Interactions, regularisation: float, block: Tensor) -> Tensor:
    """(XᵀX + λ I)⁻¹ inside ``block`` (I, I), float32, which is returned."""
    count = interactions.num_items
    taken = binary_matrix(ops.Rows(interactions.indptr, interactions.items), count)
    items = taken.T.tocsr()
    for start in range(0, count, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        block[part] = torch.from_numpy((items[part] @ taken).toarray())
    block.diagonal().add_(regularisation)
    view = block.numpy().T  # LAPACK wants columns; the matrix is symmetric
    potrf, potri = cast(Any, get_lapack_funcs)(("potrf", "potri"), (view,))
    factor, failed = potrf(view, lower=1, overwrite_a=1, clean=0)
    if failed == 0:
        inverse, failed = potri(factor, lower=1, overwrite_c=1)
        assert inverse.ctypes.data == view.ctypes.data  # no copy was made
    if failed:
        raise OptionError(
            "ease: the matrix of items is not positive definite in float32",
            "raise model.regularisation",
        )
    for start in range(0, count, _ROWS_AT_ONCE):  # only one triangle was written
        stop = min(start + _ROWS_AT_ONCE, count)
        corner = block[start:stop, start:stop].triu()
        block[start:stop, start:stop] = corner + corner.triu(1).T
        block[stop:, start:stop] = block[start:stop, stop:].T
    return block


def weights_of(inverse: Tensor) -> Tensor:
    """B of P, in place: columns divided by −P_jj, the diagonal 0."""
    inverse.div_(-inverse.diagonal().clone())
    inverse.diagonal().zero_()
    return inverse


def largest_weights(inverse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` weights of each column of B that are largest in absolute value.

    Args:
        inverse: P, shape ``(I, I)``; symmetric, so that row j orders column j of B.
        count: n, at least 1.

    Returns:
        rows ``(I, n)`` int32, padded with −1, and weights ``(I, n)``, padded with 0.
    """
    scale = -inverse.diagonal().clone()
    ids = torch.empty(len(inverse), count, dtype=torch.int32)
    values = torch.empty(len(inverse), count)
    for start in range(0, len(inverse), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        sizes = inverse[part].abs()
        sizes.diagonal(start).fill_(-torch.inf)
        best = ops.top_k_dense(sizes, count)[1]
        found = inverse[part].gather(1, best.clamp(min=0)) / scale[part, None]
        ids[part], values[part] = best.int(), found.masked_fill(best < 0, 0.0)
    return ids, values
