"""Models that score by what a user took: histories × item-to-item weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.models.base import Batch, Recommender, no_embeddings

_BLOCK_BYTES = 64 << 20
"""Upper bound of one block of scores."""


class HistoryState:
    """score(u, i) = Σ_{j ∈ history of u} W[j, i], computed a block of users at a time.

    Args:
        name: what the model is called in errors.
        histories: the users' items.
        weights: W, shape ``(I, I)``: a dense tensor, or a sparse matrix of SciPy in CSR form, float32.
        device: where scores are wanted.
    """

    kinds: frozenset[str] = frozenset({"scores"})
    score_scale: float = 1.0

    def __init__(self, name: str, histories: Interactions, weights: Any, device: torch.device) -> None:
        self._name, self._histories, self._weights = name, histories, weights
        self.device = device
        self.num_users, self.num_items = histories.num_users, histories.num_items

    def user_embeddings(self, users: Tensor) -> Tensor:
        raise no_embeddings(self._name, self.kinds)

    def item_embeddings(self, items: Tensor) -> Tensor:
        raise no_embeddings(self._name, self.kinds)

    def score_vectors(self) -> None:
        """None: the vectors would be as long as the catalogue."""

    @torch.no_grad()
    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        if items is None:
            return self._rows(users)
        unique, place = ops.unique_inverse(users.cpu(), self.num_users)
        order = place.argsort(stable=True)  # a user's rows come together, so that each is scored once
        found = torch.zeros(items.shape, device=self.device)
        size = max(1, _BLOCK_BYTES // (4 * self.num_items))
        starts = torch.arange(0, len(unique) + size, size)
        bounds = torch.searchsorted(place[order], starts).tolist()
        for number, (low, high) in enumerate(pairwise(bounds)):
            first = number * size
            rows = self._rows(unique[first : first + size])  # (size, I)
            chosen = order[low:high].to(items.device)
            ids = items[chosen]
            own = (place[order[low:high]] - first).to(self.device)[:, None]
            values = rows[own, ids.clamp(min=0).to(self.device)]
            found[chosen.to(self.device)] = values.masked_fill(ids.to(self.device) < 0, 0.0)
        return found

    def _rows(self, users: Tensor) -> Tensor:
        """Scores of all items, shape ``(b, I)``, float32."""
        rows = self._histories.rows(users.cpu())
        if isinstance(self._weights, Tensor):
            items, starts = rows.items.to(self.device), rows.indptr[:-1].int().to(self.device)
            return F.embedding_bag(items, self._weights, starts, mode="sum")
        taken = binary_matrix(rows, self.num_items)
        scores = taken @ self._weights
        return torch.from_numpy(scores.toarray()).to(self.device)


class HistoryModel(Recommender, ABC):
    """Base of the models that fit item-to-item weights at once and score histories with them."""

    closed_form: ClassVar[bool] = True
    storable: ClassVar[frozenset[str]] = frozenset[str]()

    def __init__(self) -> None:
        super().__init__()
        self._sparse: Any = None

    @abstractmethod
    def fit_weights(self, interactions: Interactions) -> None:
        """Fit the weights and store them in buffers."""

    @abstractmethod
    def item_weights(self) -> Tensor | tuple[Tensor, Tensor]:
        """The buffers: W, dense, or the rows of each column of W and the weights there, as for :func:`column_lists`."""

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self._histories = interactions

    def fit(self, interactions: Interactions, generator: torch.Generator) -> None:
        self._histories, self._sparse = interactions, None
        self.fit_weights(interactions)

    def attach(self, users: Vocabulary, items: Vocabulary, train_pairs: Interactions) -> None:
        super().attach(users, items, train_pairs)
        self._histories = train_pairs

    def train(self, mode: bool = True) -> Self:
        self._sparse = None  # other weights may have been loaded
        return super().train(mode)

    def state(self, batch: Batch | None = None) -> HistoryState:
        return self._state(self._histories)

    def fold_in(self, histories: ops.Rows) -> HistoryState:
        return self._state(as_interactions(histories, self.num_items))

    def _state(self, histories: Interactions) -> HistoryState:
        found = self.item_weights()
        if isinstance(found, Tensor):
            return HistoryState(self.model_name(), histories, found, found.device)
        ids, values = found
        if self._sparse is None:
            self._sparse = column_lists(ids.cpu(), values.cpu())
        return HistoryState(self.model_name(), histories, self._sparse, values.device)


def binary_matrix(rows: ops.Rows, num_items: int) -> Any:
    """Item rows as a sparse matrix of ones of SciPy, CSR, float32, shape ``(b, I)``."""
    ones = np.ones(len(rows.items), dtype=np.float32)
    shape = (len(rows.indptr) - 1, num_items)
    return sparse.csr_matrix((ones, rows.items.numpy(), rows.indptr.numpy()), shape=shape)


def column_lists(ids: Tensor, values: Tensor) -> Any:
    """W from the listed rows of each of its columns, as a sparse matrix of SciPy in CSR form.

    Args:
        ids: rows of each column, shape ``(I, n)``, padded with −1.
        values: the weights there, shape ``(I, n)``, float32.
    """
    column, place = torch.nonzero(ids >= 0, as_tuple=True)
    rows = ids[column, place]
    entries = (values[column, place].numpy(), (rows.numpy(), column.int().numpy()))
    return sparse.csr_matrix(entries, shape=(len(ids), len(ids)))


def as_interactions(rows: ops.Rows, num_items: int) -> Interactions:
    """Histories of new users as interactions."""
    return Interactions(len(rows.indptr) - 1, num_items, rows.indptr, rows.items, rows.indptr, rows.items)
