"""NeuMF: matrix factorisation and a network over pairs, side by side.

He et al., Neural Collaborative Filtering, WWW 2017.

    s_ui = w · [p_u ⊙ q_i ; a_L] + c,   a_0 = [x_u ; y_i],  a_l = ReLU(W_l a_{l−1} + b_l)             (eqs. 10, 12)
    L = mean over rows (u, i) of softplus(−s_ui) + Σ_{negatives j} softplus(s_uj)                      (eq. 7)

p, q and x, y: four tables of length dim. The widths of the tower are dim, dim / 2, …; s is a logit. The first layer of
a pair is that of its user plus that of its item, W_1 [x ; y] = W_x x + W_y y, so it is computed once for each user and
item and a pair costs one sum. Scores are no product of vectors: a tower of one layer is summed by a kernel that holds
nothing of a pair (on CPU in float32), otherwise in blocks of bounded memory, computed again on the way back. The
features that distillation reads are [p ; x] and [q ; y]. Tables start as N(0, 0.01²), the tower
Xavier-uniform, w uniform within ±sqrt(3 / fan in), biases at 0.

Deviation: the paper first trains both halves alone; here both start together, as in published distillation code,
which sums the loss over a batch.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch, Recommender, State, rows_of
from recdistill.models.bpr import normal, pair_scores

_TILE = 1 << 17
"""Numbers of a hidden layer held at once while all items are scored: enough to fill a cache, and no more."""

_BLOCK = 1 << 23
"""Numbers of a hidden layer held at once while given pairs are scored."""


class NeuMFState:
    """Scores of pairs.

    Args:
        model: the tables and the network.
        keep: without gradient, keep the first layers of all users and items for later reads.
    """

    kinds: frozenset[str] = frozenset({"scores", "embeddings"})
    score_scale: float = 1.0

    def __init__(self, model: NeuMF, keep: bool = True) -> None:
        self._model, self._keep = model, keep
        self.num_users, self.num_items = model.num_users, model.num_items

    @property
    def device(self) -> torch.device:
        return self._model.user_table.device

    def user_embeddings(self, users: Tensor) -> Tensor:
        return torch.cat([rows_of(self._model.user_table, users), rows_of(self._model.user_tower, users)], 1)

    def item_embeddings(self, items: Tensor) -> Tensor:
        return torch.cat([rows_of(self._model.item_table, items), rows_of(self._model.item_tower, items)], 1)

    def score_vectors(self) -> None:
        """None: a score is no product of vectors."""

    @cached_property
    def _sides(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of all users and items: weighted vectors (U, dim), first layers (U, width) and (I, width)."""
        model = self._model
        return (
            model.weighted(model.user_table),
            model.first_of_users(model.user_tower),
            model.first_of_items(model.item_tower),
        )

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        if items is None:
            return self._all_scores(users)
        model = self._model
        if torch.is_grad_enabled() or not self._keep:
            unique, row = ops.unique_inverse(users, self.num_users)
            listed, column = ops.unique_inverse(items.clamp(min=0), self.num_items)
            weighted = model.weighted(rows_of(model.user_table, unique))
            of_users = model.first_of_users(rows_of(model.user_tower, unique))
            of_items = model.first_of_items(rows_of(model.item_tower, listed))
        else:
            weighted, of_users, of_items = self._sides
            row, column = users, items.clamp(min=0)
        product = ops.scores_at(weighted, model.item_table, row, items)
        if model.num_layers == 1 and of_users.is_cpu and of_users.dtype == torch.float32:
            column = column.masked_fill(items < 0, -1)
            tower = ops.rectified_at(of_users, of_items, model.tower_weight, row, column) + model.head_bias
        else:
            pairs = row[:, None].expand_as(column).reshape(-1), column.reshape(-1)
            tower = self._pairs(of_users, of_items, *pairs).view_as(product)
        return (product + tower).masked_fill(items < 0, 0.0)

    def _pairs(self, of_users: Tensor, of_items: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The tower's part for pairs of rows of first layers, in blocks, shape ``(n,)``."""

        def block(row: Tensor, column: Tensor) -> Tensor:
            return self._model.tower(F.embedding(row, of_users) + F.embedding(column, of_items))

        size = max(1, _BLOCK // of_users.shape[1])
        if len(row) <= size:
            return block(row, column)
        again = torch.is_grad_enabled()
        found = [
            cast(Tensor, checkpoint(block, *part, use_reentrant=False, preserve_rng_state=False))
            if again
            else block(*part)
            for part in zip(row.split(size), column.split(size), strict=True)
        ]
        return torch.cat(found)

    def _all_scores(self, users: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            everything = torch.arange(self.num_items, device=users.device)
            return self.scores(users, everything.repeat(len(users), 1))
        weighted, of_users, of_items = self._sides
        scores = ops.full_precision(weighted[users] @ self._model.item_table.T)
        height = 16
        width = max(1, _TILE // (height * of_items.shape[1]))
        for start in range(0, len(users), height):
            own = of_users[users[start : start + height]][:, None]  # (b, 1, width)
            for left in range(0, self.num_items, width):
                hidden = own + of_items[left : left + width]
                scores[start : start + height, left : left + width] += self._model.tower(hidden)
        return scores


class NeuMF(Recommender):
    """Neural matrix factorisation.

    Args:
        dim: length of each of a user's and an item's two vectors, at least 1 (paper: 8 to 64).
        num_layers: of the tower, at least 1 (paper: 3; published distillation code: 1).
        num_negatives: unobserved items a row, at least 1 (paper: 4).
    """

    storable = frozenset({"embeddings"})
    dot_product = False
    tables = ("user_table", "item_table", "user_tower", "item_tower")

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 20,
        num_layers: Annotated[int, Field(ge=1)] = 1,
        num_negatives: Annotated[int, Field(ge=1)] = 4,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_layers = num_layers

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        for name, rows in (("user", self.num_users), ("item", self.num_items)):
            for part in ("table", "tower"):
                setattr(self, f"{name}_{part}", nn.Parameter(normal(rows, self.dim, 0.01, generator)))
        widths = [2 * self.dim] + [max(1, self.dim >> layer) for layer in range(self.num_layers)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inner, outer in pairwise(widths):
            self.weights.append(uniform(outer, inner, math.sqrt(6 / (inner + outer)), generator))
            self.biases.append(nn.Parameter(torch.zeros(outer)))
        fan_in = self.dim + widths[-1]
        self.head = uniform(1, fan_in, math.sqrt(3 / fan_in), generator)
        self.head_bias = nn.Parameter(torch.zeros(1))

    user_table: nn.Parameter
    item_table: nn.Parameter
    user_tower: nn.Parameter
    item_tower: nn.Parameter

    @property
    def tower_weight(self) -> Tensor:
        """The part of w for the tower, (width,)."""
        return self.head[0, self.dim :]

    def weighted(self, users: Tensor) -> Tensor:
        """w ⊙ p of ``users`` (n, dim), whose product with q is the first half of a score."""
        return users * self.head[0, : self.dim]

    def first_of_users(self, users: Tensor) -> Tensor:
        """W_x x + b of ``users`` (n, dim), shape ``(n, width)``."""
        return ops.full_precision(users @ self.weights[0][:, : self.dim].T + self.biases[0])

    def first_of_items(self, items: Tensor) -> Tensor:
        """W_y y of ``items`` (n, dim), shape ``(n, width)``."""
        return ops.full_precision(items @ self.weights[0][:, self.dim :].T)

    def tower(self, first: Tensor) -> Tensor:
        """The second half of a score from first layers before their ReLU, ``(…, width)`` to ``(…)``."""
        hidden = first.relu()
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
            hidden = (hidden @ weight.T + bias).relu()
        return ops.full_precision(hidden @ self.tower_weight + self.head_bias)

    def state(self, batch: Batch | None = None) -> NeuMFState:
        return NeuMFState(self, keep=batch is None)

    def loss(self, state: State, batch: Batch) -> Tensor:
        return pair_loss(pair_scores(state, batch))


def uniform(rows: int, columns: int, bound: float, generator: torch.Generator) -> nn.Parameter:
    """A parameter drawn uniformly from ±``bound``, shape ``(rows, columns)``."""
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound, generator=generator))


def pair_loss(scores: Tensor) -> Tensor:
    """mean softplus(−s⁺) + Σ softplus(s⁻) for logits ``(n, 1 + m)`` whose first column is the positive."""
    return F.softplus(-scores[:, 0]).mean() + F.softplus(scores[:, 1:]).sum(dim=1).mean()
