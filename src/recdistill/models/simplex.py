"""SimpleX: cosine scores, users blended with their history, many negatives.

Mao et al., SimpleX: A Simple and Strong Baseline for Collaborative Filtering, CIKM 2021.

    h_u = γ p_u + (1 − γ) W · mean of q_i over u's train items i                                (eqs. 6, 7, 10)
    s_ui = cos(h_u, q_i)
    L = mean over rows (u, i) of (1 − s_ui) + w · mean over negatives j of max(0, s_uj − m)      (eq. 4, CCL)

p, q vectors, W a dim × dim matrix, γ ``own_weight``, w ``negative_weight``, m ``margin``. In training, entries of the
normalised h_u are dropped. Negatives come from all items, positives among them, as in the published code, or from
the unobserved ones. Vectors start as N(0, 1e-4²), W as Xavier-normal. The loss is a mean in the published code too.

Deviations: the history is the user's whole train row, the row's own positive included; published code cuts it at
500 items, as it gathers a vector for each, where a sum over sparse rows needs no cut. Only the average of the
paper's three aggregations is here. The features that distillation reads are the normalised vectors, whose product
is the score. An item that nobody drew and a user without items and own vector score 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch, Recommender, ScoreVectors, State, rows_of, square_norms
from recdistill.models.bpr import normal, pair_scores
from recdistill.models.history import as_interactions
from recdistill.models.sampling import pair_batches

_TINY = 1e-12


class SimpleXState:
    """Cosine scores. Users' vectors are made once for the batch's users, others when they are asked for.

    Args:
        model: the tables and options.
        users: the users' own vectors, shape ``(U, dim)``.
        histories: the users' items.
        batch: users whose vectors several losses will read, ascending; None to keep all, if there is no gradient.
    """

    kinds: frozenset[str] = frozenset({"scores", "embeddings"})

    def __init__(
        self, model: SimpleX, users: Tensor, histories: Interactions, batch: Tensor | None = None
    ) -> None:
        self._model, self._users, self._histories, self._batch = model, users, histories, batch
        self._items = model.item_table
        self.score_scale = model.score_scale
        self.num_users, self.num_items = users.shape[0], self._items.shape[0]

    def _make(self, users: Tensor) -> Tensor:
        """Normalised vectors of ``users`` (b,), shape ``(b, dim)``."""
        model, items = self._model, self._items
        rows = self._histories.rows(users.cpu())
        mean = F.embedding_bag(
            rows.items.to(items.device),
            items,
            rows.indptr[:-1].int().to(items.device),
            mode="mean",
            sparse=items.requires_grad,
        )  # (b, dim); an empty history gives 0
        blended = model.own_weight * rows_of(self._users, users) + (1 - model.own_weight) * (
            mean @ model.transform.T
        )
        return F.dropout(F.normalize(blended, dim=1, eps=_TINY), model.dropout, model.training)

    @cached_property
    def _of_batch(self) -> Tensor:
        assert self._batch is not None
        return self._make(self._batch)

    @cached_property
    def _tables(self) -> ScoreVectors:
        everyone = torch.arange(self.num_users, device=self._items.device)
        return ScoreVectors(self._make(everyone), F.normalize(self._items, dim=1, eps=_TINY))

    def _vectors(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """A table of vectors, and the row of each user in it."""
        if self._batch is None and not torch.is_grad_enabled():
            return self._tables.users, users
        if self._batch is not None:
            place = torch.searchsorted(self._batch, users).clamp(max=len(self._batch) - 1)
            if bool((self._batch[place] == users).all()):
                return self._of_batch, place
        unique, place = ops.unique_inverse(users, self.num_users)
        return self._make(unique), place

    def user_embeddings(self, users: Tensor) -> Tensor:
        table, place = self._vectors(users)
        return table[place]

    def item_embeddings(self, items: Tensor) -> Tensor:
        return F.normalize(rows_of(self._items, items), dim=1, eps=_TINY)

    def score_vectors(self) -> ScoreVectors:
        return self._tables

    def user_scores(self, items: Tensor, users: Tensor) -> Tensor:
        """Those of ``users`` (b, n) for each of ``items`` (b,), 0 at padding (−1)."""
        table, place = self._vectors(users.clamp(min=0))
        rows = torch.arange(len(items), device=items.device)
        return ops.scores_at(self.item_embeddings(items), table, rows, place.masked_fill(users < 0, -1))

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        table, place = self._vectors(users)
        if items is None:
            return table[place] @ self._tables.items.T
        lengths = square_norms(self._items, items).clamp(min=_TINY**2).sqrt()
        return ops.scores_at(table, self._items, place, items) / lengths


class SimpleX(Recommender):
    """Collaborative filtering with the cosine contrastive loss.

    Args:
        dim: length of a vector, at least 1 (published: 64 and more).
        own_weight: γ, within [0, 1]; 1 leaves the history out (published: .3 to .7).
        margin: m, within [−1, 1]; negatives below it cost nothing (published: .1 to .9).
        negative_weight: w, at least 0 (paper: 1 to 1,000 by the data).
        num_negatives: a row, at least 1 (published: 1,000 to 2,000, with 256 to 512 rows a step).
        negatives: ``all`` draws them from all items, ``unobserved`` from those the user has not taken
            (published: all).
        dropout: share of a user vector's entries dropped in training, within [0, 1) (published: .1 to .2).
        score_scale: what list-wise distillation losses multiply the scores by, above 0: the inverse of a
            temperature. Cosines lie within [−1, 1], which leaves a softmax over many items nearly flat.
    """

    tables = ("user_table", "item_table")

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        own_weight: Annotated[float, Field(ge=0, le=1)] = 0.5,
        margin: Annotated[float, Field(ge=-1, le=1)] = 0.3,
        negative_weight: Annotated[float, Field(ge=0)] = 100.0,
        num_negatives: Annotated[int, Field(ge=1)] = 1000,
        negatives: Literal["all", "unobserved"] = "all",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        score_scale: Annotated[float, Field(gt=0)] = 10.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.own_weight = own_weight
        self.margin = margin
        self.negative_weight = negative_weight
        self.negatives = negatives
        self.dropout = dropout
        self.score_scale = score_scale

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.user_table = nn.Parameter(normal(self.num_users, self.dim, 1e-4, generator))
        self.item_table = nn.Parameter(normal(self.num_items, self.dim, 1e-4, generator))
        self.transform = nn.Parameter(normal(self.dim, self.dim, self.dim**-0.5, generator))
        self._histories = interactions

    def attach(self, users: Any, items: Any, train_pairs: Interactions) -> None:
        super().attach(users, items, train_pairs)
        self._histories = train_pairs

    def state(self, batch: Batch | None = None) -> SimpleXState:
        return SimpleXState(self, self.user_table, self._histories, None if batch is None else batch.users)

    def fold_in(self, histories: ops.Rows) -> SimpleXState:
        rows = as_interactions(histories, self.num_items)
        nothing = torch.zeros(rows.num_users, self.dim, device=self.item_table.device)
        return SimpleXState(self, nothing, rows)

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        if self.negatives == "unobserved":
            yield from super().batches(interactions, batch_size, generator)
            return
        for batch in pair_batches(interactions, batch_size, 0, generator):
            shape = (len(batch), self.num_negatives())
            yield replace(batch, negatives=torch.randint(self.num_items, shape, generator=generator))

    def loss(self, state: State, batch: Batch) -> Tensor:
        return cosine_contrastive_loss(pair_scores(state, batch), self.margin, self.negative_weight)


def cosine_contrastive_loss(scores: Tensor, margin: float, negative_weight: float) -> Tensor:
    """mean (1 − s⁺) + w · mean max(0, s⁻ − m) for cosines ``(n, 1 + negatives)``, the positive first."""
    return (1 - scores[:, 0]).mean() + negative_weight * (scores[:, 1:] - margin).relu().mean()
