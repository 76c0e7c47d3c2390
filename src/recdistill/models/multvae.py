"""MultVAE: a variational autoencoder over users' histories with a multinomial likelihood.

Liang et al., Variational Autoencoders for Collaborative Filtering, WWW 2018.

    [μ_u ; log σ_u²] = encoder(x_u / ‖x_u‖),  z_u = μ_u + σ_u ⊙ ε,  s_u = Q h(z_u) + b
    L = mean over users u of −Σ_i x_ui log softmax(s_u)_i + β KL(N(μ_u, σ_u²) ‖ N(0, 1))              (eqs. 2, 7)

x_u: the binary row of u's train items, entries of which are dropped in training; ε ~ N(0, 1), and 0 once trained;
h: the last hidden layer, so that a score is a product of h_u with a row of Q plus b_i. β grows linearly from 0 over
the first ``anneal_steps`` steps. The layers are those of :mod:`recdistill.models.autoencoder`.

A step is some users with all of their pairs, about ``batch_size`` of them, so that an epoch is every user once; the
loss reads whole histories, however many of a user's pairs a batch has. It draws nothing: batches have a negative a
pair for methods and other models that read one, and a user who took the whole catalogue is not trained on. The
features that distillation reads are h_u and the rows of Q. All losses of a step read one pass of its users, noise
included; others are encoded when they are asked for. A user without items is encoded from an empty row and gets the
scores that biases give.

Conversions: the published β after t steps is min(cap, t / T); here β = cap and ``anneal_steps`` = cap · T, so that
.2 and 200,000 is .2 and 40,000. A published batch of B users is a ``batch_size`` of B times the mean number of items
a user. The loss is a mean over users in the paper too. One published implementation draws ε with deviation .01,
which leaves no noise; here it is 1, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.autoencoder import Autoencoder, AutoencoderModel, Codes, biases
from recdistill.models.base import Batch, ScoreVectors, State, rows_of
from recdistill.models.history import as_interactions
from recdistill.models.sampling import row_batches


class MultVAEState:
    """Users' vectors out of their histories, items' vectors from the output layer.

    Args:
        network: the autoencoder over rows of items.
        histories: the users' items.
        batch: the users whose vectors the losses of a step share.
    """

    kinds: frozenset[str] = frozenset({"scores", "embeddings"})
    score_scale: float = 1.0

    def __init__(self, network: Autoencoder, histories: Interactions, batch: Tensor | None = None) -> None:
        self.codes = Codes(network, histories, batch)
        self._items, self._bias = network.output_table, network.output_bias
        self.num_users, self.num_items = histories.num_users, histories.num_items

    def user_embeddings(self, users: Tensor) -> Tensor:
        table, place = self.codes.vectors(users)
        return table[place]

    def item_embeddings(self, items: Tensor) -> Tensor:
        return rows_of(self._items, items)

    def score_vectors(self) -> ScoreVectors:
        return ScoreVectors(self.codes.table, self._items, self._bias)

    def score_vectors_of(self, users: Tensor) -> ScoreVectors:
        table, place = self.codes.vectors(users)
        return ScoreVectors(table[place], self._items, self._bias)

    def user_scores(self, items: Tensor, users: Tensor) -> Tensor:
        """Those of ``users`` (b, n) for each of ``items`` (b,), 0 at padding (−1)."""
        table, place = self.codes.vectors(users.clamp(min=0))
        product = ops.scores_at(self._items, table, items, place.masked_fill(users < 0, -1))
        return (product + self._bias[items][:, None]).masked_fill(users < 0, 0.0)

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        table, place = self.codes.vectors(users)
        if items is None:
            return table[place] @ self._items.T + self._bias
        product = ops.scores_at(table, self._items, place, items)  # (b, n)
        return (product + biases(self._bias, items)).masked_fill(items < 0, 0.0)


class MultVAE(AutoencoderModel):
    """Variational autoencoder over users.

    Args:
        dim: length of z, at least 1 (paper: 200).
        hidden_dim: width of the hidden layer on either side of z, at least 0; 0 for none (paper: 600 or
            none).
        dropout: share of a history's entries dropped in training, within [0, 1) (paper: .5).
        beta: largest weight of the KL term, at least 0 (paper: .2).
        anneal_steps: steps over which β grows to it, at least 0 (paper: 40,000 of 500 users).
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
    ) -> None:
        super().__init__(
            dim=dim, hidden_dim=hidden_dim, dropout=dropout, beta=beta, anneal_steps=anneal_steps
        )

    def rows_in(self, interactions: Interactions) -> Interactions:
        return interactions

    def state(self, batch: Batch | None = None) -> MultVAEState:
        return MultVAEState(self.network, self.rows, None if batch is None else batch.users)

    def fold_in(self, histories: ops.Rows) -> MultVAEState:
        return MultVAEState(self.network, as_interactions(histories, self.num_items))

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        return row_batches(interactions, batch_size, self.num_negatives(), generator)

    def loss(self, state: State, batch: Batch) -> Tensor:
        assert isinstance(state, MultVAEState)
        return self.loss_of(state.codes, batch.users)
