"""ItemKNN: items that the same users took, fitted at once.

Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001; Deshpande & Karypis, Item-Based
Top-N Recommendation Algorithms, TOIS 2004.

    sim(i, j) = |U_i ∩ U_j| / (sqrt(|U_i| |U_j|) + h)
    s_ui = Σ_{j ∈ D_u ∩ N(i)} sim(i, j)

U_i: train users of item i; D_u: u's train items; N(i): the n items most similar to i, of similarity above 0; h: the
shrinkage of Bell & Koren (KDD Cup 2007), which distrusts similarities that few users support. Similarities are made
a block of items at a time, of pairs that some user took, and only N(i) is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.history import HistoryModel, binary_matrix

_BLOCK_BYTES = 64 << 20
_PAIR_BYTES = 64
"""About what a pair of items takes while neighbours are found."""


class ItemKNN(HistoryModel):
    """Nearest neighbours among items, by cosine.

    Args:
        num_neighbors: n, at least 1 (papers: 10 to 100).
        shrinkage: h, at least 0, in users.
    """

    tables = ("neighbors", "similarities")

    @validated
    def __init__(
        self,
        *,
        num_neighbors: Annotated[int, Field(ge=1)] = 100,
        shrinkage: Annotated[float, Field(ge=0)] = 10.0,
    ) -> None:
        super().__init__()
        self.num_neighbors = num_neighbors
        self.shrinkage = shrinkage

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        super().build(interactions, generator)
        shape = self.num_items, min(self.num_neighbors, self.num_items)
        self.register_buffer("neighbors", torch.full(shape, -1, dtype=torch.int32))
        self.register_buffer("similarities", torch.zeros(shape))

    def fit_weights(self, interactions: Interactions) -> None:
        ids, similarities = nearest(interactions, self.get_buffer("neighbors").shape[1], self.shrinkage)
        self.get_buffer("neighbors").copy_(ids)
        self.get_buffer("similarities").copy_(similarities)

    def item_weights(self) -> tuple[Tensor, Tensor]:
        return self.get_buffer("neighbors"), self.get_buffer("similarities")


def nearest(interactions: Interactions, count: int, shrinkage: float) -> tuple[Tensor, Tensor]:
    """The ``count`` items most similar to each item, equal ones by smaller index.

    Takes time and memory by the pairs of items that a user took both of, not by items × items.

    Returns:
        ids ``(I, n)`` int32, padded with −1, and similarities ``(I, n)``, padded with 0.
    """
    num_items = interactions.num_items
    taken = binary_matrix(ops.Rows(interactions.indptr, interactions.items), num_items)
    items = taken.T.tocsr()
    lengths = interactions.item_counts.float().sqrt()
    ids = torch.full((num_items, count), -1, dtype=torch.int32)
    similarities = torch.zeros(num_items, count)
    pairs = (items @ interactions.user_counts.numpy()).astype(np.int64)  # at least as many as neighbours
    for part in _blocks(np.minimum(pairs, num_items)):
        both = items[part.numpy()] @ taken  # users who took both
        both.sort_indices()
        found = torch.from_numpy(both.data)
        rows = torch.from_numpy(np.diff(both.indptr)).long()
        row = torch.arange(len(part)).repeat_interleave(rows)
        column = torch.from_numpy(both.indices).long()
        found = found / (lengths[part][row] * lengths[column] + shrinkage)
        found[column == part[row]] = -torch.inf
        place = torch.arange(len(row)) - torch.from_numpy(both.indptr[:-1]).long()[row]
        width = int(rows.max())
        scores, columns = (
            torch.full((len(part), width), -torch.inf),
            torch.zeros(len(part), width, dtype=torch.int32),
        )
        scores[row, place], columns[row, place] = found, column.int()
        best, chosen = ops.top_k_dense(scores, count)
        ids[part] = columns.gather(1, chosen.clamp(min=0)).masked_fill(chosen < 0, -1)
        similarities[part] = best.masked_fill(chosen < 0, 0.0)
    return ids, similarities


def _blocks(widths: npt.NDArray[np.int64]) -> Iterator[Tensor]:
    """Items of like width together, of as many numbers as a block may hold; those of width 0 in none."""
    order = np.argsort(-widths, kind="stable")
    order = order[widths[order] > 0]
    start = 0
    while start < len(order):
        stop = start + max(1, _BLOCK_BYTES // (_PAIR_BYTES * int(widths[order[start]])))
        yield torch.from_numpy(order[start:stop])
        start = stop
