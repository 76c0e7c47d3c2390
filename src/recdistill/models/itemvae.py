"""ItemVAE: MultVAE with users and items swapped, the item autoencoder (I-AE) of HetComp's ensembles.

Kang et al., Distillation from Heterogeneous Models for Top-K Recommendation, WWW 2023; the autoencoder is that of
Liang et al., Variational Autoencoders for Collaborative Filtering, WWW 2018.

    [μ_i ; log σ_i²] = encoder(x_i / ‖x_i‖),  z_i = μ_i + σ_i ⊙ ε,  s_·i = Q h(z_i) + b
    L = mean over items i of −Σ_u x_ui log softmax(s_·i)_u + β KL(N(μ_i, σ_i²) ‖ N(0, 1))

x_i: the binary row of i's train users, n_i of them; h, Q, b and β are those of :mod:`recdistill.models.multvae` with
users for items and items for users. The softmax is over users, so that it leaves a constant of each item open, and
the published score s_ui (``score="logits"``) compares items by a number that training does not determine. The default
``score="expected"`` is the model's own expected count,

    score(u, i) = log(n_i + 1) + log softmax(s_·i)_u,

whose 1 keeps items without train users finite. It is a product of vectors with a bias a item too, made once for a
trained model (CiteULike: NDCG@10 of .097 against .082). A student that is taught scores needs it at each step for
every listed item, over all users: ``logits`` costs much less there.

A step is some items with all of their pairs, about ``batch_size`` of them, so that an epoch is every item once; the
loss covers the batch's positive items. The features that distillation reads are the rows of Q and h_i. An item
without train users is encoded from an empty row: what biases give. New users have no column in Q: they are folded in
by least squares over h_i, as for models without a way of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.autoencoder import Autoencoder, AutoencoderModel, Codes, biases, log_norms
from recdistill.models.base import Batch, ScoreVectors, State, rows_of
from recdistill.models.sampling import row_batches


class ItemVAEState:
    """Items' vectors out of their users, users' vectors from the output layer.

    Args:
        network: the autoencoder over rows of users.
        takers: the items' users, items in the place of users.
        batch: the items whose vectors the losses of a step share.
        expected: score by the expected count, not by the logit.
    """

    kinds: frozenset[str] = frozenset({"scores", "embeddings"})
    score_scale: float = 1.0

    def __init__(
        self, network: Autoencoder, takers: Interactions, batch: Tensor | None = None, expected: bool = False
    ) -> None:
        self.codes = Codes(network, takers, batch)
        self._users, self._bias = network.output_table, network.output_bias
        self._counts, self._expected = takers.user_counts, expected
        self.num_users, self.num_items = takers.num_items, takers.num_users

    def _shifts(self, items: Tensor, vectors: Tensor) -> Tensor:
        """log(n_i + 1) − log Σ_u exp(s_ui) of ``items`` (m,) with ``vectors`` (m, width)."""
        counts = self._counts[items.cpu()].to(vectors)
        return counts.log1p() - log_norms(vectors, self._users, self._bias)

    @cached_property
    def _vectors(self) -> ScoreVectors:
        table = self.codes.table
        everything = torch.arange(self.num_items)
        shifts = self._shifts(everything, table) if self._expected else None
        return ScoreVectors(self._users, table, shifts, self._bias)

    def user_embeddings(self, users: Tensor) -> Tensor:
        return rows_of(self._users, users)

    def item_embeddings(self, items: Tensor) -> Tensor:
        table, place = self.codes.vectors(items)
        return table[place]

    def score_vectors(self) -> ScoreVectors:
        return self._vectors

    def user_scores(self, items: Tensor, users: Tensor) -> Tensor:
        """Those of ``users`` (b, n) for each of ``items`` (b,), 0 at padding (−1)."""
        table, place = self.codes.vectors(items)
        scores = ops.scores_at(table, self._users, place, users) + biases(self._bias, users.clamp(min=0))
        if self._expected:
            scores = scores + self._shifts_at(items[:, None], table, place[:, None])
        return scores.masked_fill(users < 0, 0.0)

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        own = self._bias[users][:, None]
        if items is None:
            vectors = self._vectors
            scores = self._users[users] @ vectors.items.T + own
            return scores if vectors.item_bias is None else scores + vectors.item_bias
        listed = items.clamp(min=0)
        table, place = self.codes.vectors(listed)
        scores = ops.scores_at(self._users, table, users, place.masked_fill(items < 0, -1)) + own  # (b, n)
        if self._expected:
            scores = scores + self._shifts_at(listed, table, place)
        return scores.masked_fill(items < 0, 0.0)

    def _shifts_at(self, items: Tensor, table: Tensor, place: Tensor) -> Tensor:
        """Those of ``items`` (b, n) with vectors ``table[place]``, made once for each distinct one."""
        if self.codes.keeps_all():
            shifts = self._vectors.item_bias
            assert shifts is not None
            return biases(shifts, items)
        unique, column = ops.unique_inverse(items, self.num_items)
        rows = torch.empty_like(unique).scatter_(0, column.reshape(-1), place.reshape(-1))
        return biases(self._shifts(unique, table[rows]), column)


class ItemVAE(AutoencoderModel):
    """Variational autoencoder over items.

    Args:
        dim: length of z, at least 1.
        hidden_dim: width of the hidden layer on either side of z, at least 0; 0 for none.
        dropout: share of an item's users dropped in training, within [0, 1).
        beta: largest weight of the KL term, at least 0.
        anneal_steps: steps over which β grows to it, at least 0.
        score: ``expected`` ranks by the expected count, ``logits`` by the output layer, as published.
    """

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 200,
        hidden_dim: Annotated[int, Field(ge=0)] = 0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        beta: Annotated[float, Field(ge=0)] = 0.2,
        anneal_steps: Annotated[int, Field(ge=0)] = 1000,
        score: Literal["expected", "logits"] = "expected",
    ) -> None:
        super().__init__(
            dim=dim, hidden_dim=hidden_dim, dropout=dropout, beta=beta, anneal_steps=anneal_steps
        )
        self.score = score

    def rows_in(self, interactions: Interactions) -> Interactions:
        return interactions.transpose()

    def state(self, batch: Batch | None = None) -> ItemVAEState:
        items = None if batch is None else batch.unique_positives
        return ItemVAEState(self.network, self.rows, items, self.score == "expected")

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        return row_batches(interactions, batch_size, self.num_negatives(), generator, by_item=True)

    def loss(self, state: State, batch: Batch) -> Tensor:
        assert isinstance(state, ItemVAEState)
        return self.loss_of(state.codes, batch.unique_positives)
