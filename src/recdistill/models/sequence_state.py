"""What a sequence model answers: item by item over the windows of a batch, user by user at the end of a history."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.models.base import ScoreVectors, rows_of
from recdistill.models.sequence_batches import Places, SequenceBatch

if TYPE_CHECKING:
    from recdistill.models.sequential import SequenceModel


class Encoded(NamedTuple):
    """What an encoder makes of N items.

    Attributes:
        embeddings: what enters the first layer, shape ``(N, dim)``.
        hidden_states: what each layer leaves, shape ``(N, dim)`` each.
        outputs: what is multiplied with the output table, shape ``(N, dim)``.
    """

    embeddings: Tensor
    hidden_states: tuple[Tensor, ...]
    outputs: Tensor


class SequenceState:
    """What a sequence model answers.

    Users are read at the end of their history: their vector is the output at their newest item. With a batch, what
    is read item by item (:attr:`embeddings`, :attr:`hidden_states`, :meth:`logits`) covers the items of the batch's
    windows, N rows without padding, and is computed once. Vectors of users outside the batch are computed when they
    are asked for; all users' are kept where there is no gradient.

    Args:
        model: the tables and layers.
        histories: the users' events.
        batch: users and windows that several losses will read.

    Attributes:
        batch: the windows; None for a state of all users.
    """

    kinds: frozenset[str] = frozenset({"scores", "embeddings", "hidden_states"})

    def __init__(self, model: SequenceModel, histories: Interactions, batch: SequenceBatch | None) -> None:
        self._model, self._histories, self.batch = model, histories, batch
        self.num_users, self.num_items = histories.num_users, model.num_items
        self.score_scale = 1.0

    # item by item, over the batch's windows

    @property
    def answered(self) -> Tensor | None:
        """Rows among the N items at which next items are predicted, (n,) int64; None for all of them."""
        return self._model.answered(self.places)

    @property
    def places(self) -> Places:
        """Where the N items of the batch's windows lie; ``places.mask`` is the padding mask, True at items."""
        assert self.batch is not None, "a state of all users has no windows: pass a batch"
        return self.batch.places

    @cached_property
    def encoded(self) -> Encoded:
        return self._model.encode(self.places)

    @property
    def embeddings(self) -> Tensor:
        """What enters the first layer, shape ``(N, dim)``."""
        return self.encoded.embeddings

    @property
    def hidden_states(self) -> tuple[Tensor, ...]:
        """What each layer leaves, first to last, shape ``(N, dim)`` each."""
        return self.encoded.hidden_states

    def next_item_vectors(self) -> ScoreVectors:
        """Tables whose product is :meth:`logits`: a row for each of the N items, and the output table."""
        return ScoreVectors(self.encoded.outputs, self._table, self._model.output_bias)

    def logits(self, at: Tensor | None = None, items: Tensor | None = None) -> Tensor:
        """Scores of items as the next one.

        Args:
            at: rows among the N, shape ``(n,)``, int64; all by default.
            items: shape ``(n, m)``, int64, −1 scores 0; the whole catalogue by default (n × I numbers).
        """
        outputs = self.encoded.outputs if at is None else self.encoded.outputs[at]
        return self._model.product(outputs, items, table=self._table)

    @cached_property
    @torch.no_grad()
    def _fixed_table(self) -> Tensor:
        return self._model.output_table

    @property
    def _table(self) -> Tensor:
        """The output table, made once for all reads without a gradient.

        A read with a gradient makes its own: one graph for all would add their gradients in another order, so that
        training with a seed would give other bits.
        """
        return self._model.output_table if torch.is_grad_enabled() else self._fixed_table

    # user by user, at the end of the history

    @cached_property
    def _of_batch(self) -> Tensor:
        assert self.batch is not None
        if self._model.reads_positions:
            return self._model.vectors_of(self._histories, self.batch.users.cpu())
        return self.places.at_end(self.encoded.outputs)[self.batch.newest]

    @cached_property
    @torch.no_grad()
    def _of_all(self) -> Tensor:
        everyone = torch.arange(self.num_users)
        return self._model.vectors_of(self._histories, everyone).detach()

    def _vectors(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """A table of vectors, and the row of each user in it."""
        if self.batch is not None:
            known = self.batch.users
            place = torch.searchsorted(known, users).clamp(max=len(known) - 1)
            if bool((known[place] == users).all()):
                return self._of_batch, place
        elif not torch.is_grad_enabled():
            return self._of_all, users
        unique, place = ops.unique_inverse(users, self.num_users)
        return self._model.vectors_of(self._histories, unique.cpu()), place

    def user_embeddings(self, users: Tensor) -> Tensor:
        table, place = self._vectors(users)
        return table[place]

    def item_embeddings(self, items: Tensor) -> Tensor:
        return rows_of(self._table, items)

    def score_vectors(self) -> ScoreVectors | None:
        """All users' vectors and the output table; None for a batch, which has vectors of its users alone."""
        if self.batch is not None:
            return None
        return ScoreVectors(self._of_all, self._table, self._model.output_bias)

    def score_vectors_of(self, users: Tensor) -> ScoreVectors:
        table, place = self._vectors(users)
        return ScoreVectors(table[place], self._table, self._model.output_bias)

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        table, place = self._vectors(users)
        if items is None:
            return self._model.product(table[place], None, table=self._table)
        return self._model.product(table, items, place, self._table)
