"""Graphs of entities that occur together, and rows of a filter on them; sparse throughout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.data.interactions import Interactions
from recdistill.ops import owners_of

_BLOCK_COUNTS = 1 << 21
"""Bound on the products that are added up to one block of co-occurrence counts."""


class Bags(NamedTuple):
    """Rows of the filter H, over the entities that they touch.

    Attributes:
        ids: the entities touched, ascending, shape ``(m,)``, int64.
        places: where in ``ids`` each entry lies, row after row, shape ``(e,)``, int64.
        starts: where each row starts, shape ``(b,)``, int64.
        values: the entries of H, shape ``(e,)``.
    """

    ids: Tensor
    places: Tensor
    starts: Tensor
    values: Tensor

    def apply(self, vectors: Tensor) -> Tensor:
        """H times the vectors of ``ids`` (m, d), shape ``(b, d)``."""
        vectors = vectors.to(self.values.dtype)
        return F.embedding_bag(self.places, vectors, self.starts, mode="sum", per_sample_weights=self.values)

    def sums(self) -> Tensor:
        """Row sums of H, shape ``(b,)``."""
        return self.apply(self.values.new_ones(len(self.ids), 1))[:, 0]


class Graph(nn.Module):
    """A sparse matrix of neighbours, whose rows are read as bags.

    Args:
        matrix: N × N, CSR.
    """

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        super().__init__()
        self.register_buffer("indptr", torch.from_numpy(matrix.indptr).long(), persistent=False)
        self.register_buffer("indices", torch.from_numpy(matrix.indices).long(), persistent=False)
        self.register_buffer("values", torch.from_numpy(matrix.data).float(), persistent=False)

    def bags(self, rows: Tensor, alpha: float, keep: float, generator: torch.Generator) -> Bags:
        """Rows of α Ã + (1 − α) I, the edges of Ã dropped at random and grown by 1/keep."""
        indptr = self.get_buffer("indptr")
        lengths = indptr[rows + 1] - indptr[rows]
        ends = lengths.cumsum(0)
        shift = torch.repeat_interleave(indptr[rows] - ends + lengths, lengths)
        edges = torch.arange(len(shift), device=rows.device) + shift
        owner = owners_of(lengths)
        neighbors, values = self.get_buffer("indices")[edges], alpha * self.get_buffer("values")[edges]
        if keep < 1:
            kept = (torch.rand(len(edges), generator=generator) < keep).to(rows.device)
            owner, neighbors, values = owner[kept], neighbors[kept], values[kept] / keep
        ids, places = torch.unique(torch.cat([rows, neighbors]), return_inverse=True)
        itself = torch.arange(len(rows), device=rows.device)
        order = torch.argsort(torch.cat([itself, owner]), stable=True)
        values = torch.cat([values.new_full((len(rows),), 1 - alpha), values])[order]
        counts = torch.bincount(owner, minlength=len(rows)) + 1
        return Bags(ids, places[order], counts.cumsum(0) - counts, values)


def co_occurring(pairs: Interactions, k: int) -> sparse.csr_matrix:
    """Each user's k others with the most items in common, as a U × U matrix of ones; sparse throughout.

    Equal counts rank by smaller index. Give the transposed pairs for items.
    """
    ones = np.ones(pairs.num_pairs, dtype=np.int32)
    shape = pairs.num_users, pairs.num_items
    taken = sparse.csr_matrix((ones, pairs.items.numpy(), pairs.indptr.numpy()), shape=shape)
    takers = sparse.csr_matrix(taken.T)
    # row u of the counts adds up the takers of u's items: that bounds the size of a block
    work = taken @ pairs.item_counts.numpy()
    block_of = np.cumsum(work) // _BLOCK_COUNTS
    starts = np.flatnonzero(np.diff(block_of, prepend=-1))
    owners: list[NDArray[np.int64]] = []
    others: list[NDArray[np.int64]] = []
    for start, stop in zip(starts, np.append(starts[1:], pairs.num_users), strict=True):
        counts = (taken[start:stop] @ takers).tocoo()
        row, column = best_of_rows(counts.row + start, counts.col, counts.data, k)
        owners.append(row)
        others.append(column)
    owner, other = np.concatenate(owners), np.concatenate(others)
    return sparse.csr_matrix((np.ones(len(owner)), (owner, other)), shape=(shape[0], shape[0]))


def best_of_rows(
    row: NDArray[np.integer], column: NDArray[np.integer], count: NDArray[np.integer], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the k largest entries of each row, the diagonal left out."""
    off = row != column
    row, column, count = row[off].astype(np.int64), column[off].astype(np.int64), count[off].astype(np.int64)
    if len(row) == 0:
        return row, column
    first, most, width = int(row.min()), int(count.max()), int(column.max()) + 1
    key = np.sort(((row - first) * (most + 1) + (most - count)) * width + column)
    row = key // (width * (most + 1)) + first
    place = np.arange(len(row)) - np.searchsorted(row, row)
    best = place < k
    return row[best], key[best] % width


def normalised(directed: sparse.csr_matrix) -> sparse.csr_matrix:
    """D^-½ (A + Aᵀ)/2 D^-½ with D the row sums of (A + Aᵀ)/2; rows without edges stay empty."""
    undirected = sparse.csr_matrix((directed + directed.T) / 2)
    degree = np.asarray(undirected.sum(axis=1)).ravel()
    scale = sparse.diags(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    return sparse.csr_matrix(scale @ undirected @ scale)
