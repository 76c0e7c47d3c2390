"""Collaborative Metric Learning: users are near the items they like.

Hsieh et al., Collaborative Metric Learning, WWW 2017.

    s_ui = −‖p_u − q_i‖²,  ‖p_u‖ ≤ 1, ‖q_i‖ ≤ 1                                             (eqs. 1, 9)
    L = mean over rows (u, i) of w_ui · mean over negatives j of max(0, m + s_uj − s_ui)     (eq. 2)
        + c · Σ_{a ≠ b} C_ab²,  C: covariance over the batch's vectors                       (eq. 8)
    w_ui = 1, or log(1 + ⌊I · N / J⌋) with N of the J negatives inside the margin            (eqs. 3, 4)

p, q vectors; m ``margin``; c ``covariance_weight``; I items. All rows of both tables are projected into the ball of
radius ``max_norm`` whenever the state is computed, that is before every step: what a row is then depends on the
weights alone, so that a resumed run is exact and validation changes nothing. (The authors clip the rows that they
look up; rows that only momentum moves differ until they are read.) The projection is one pass over both tables.

Deviations: the authors' released code takes the nearest negative where several are drawn, here all count as in the
equation; their covariance term mixes a norm with a squared norm, here both are squared. Published distillation code
uses one negative, no rank weight and no covariance term: the defaults. It sums over a batch, here a mean.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch, Recommender, ScoreVectors, State, rows_of, square_norms
from recdistill.models.bpr import normal, pair_scores


class CMLState:
    """Two tables whose negative squared distance is the score.

    Args:
        users: shape ``(U, dim)``.
        items: shape ``(I, dim)``.
        score_scale: what list-wise losses multiply the scores by.
    """

    kinds: frozenset[str] = frozenset({"scores", "embeddings"})

    def __init__(self, users: Tensor, items: Tensor, score_scale: float = 1.0) -> None:
        self.users, self.items = users, items
        self.score_scale = score_scale
        self.num_users, self.num_items = users.shape[0], items.shape[0]

    def user_embeddings(self, users: Tensor) -> Tensor:
        return rows_of(self.users, users)

    def item_embeddings(self, items: Tensor) -> Tensor:
        return rows_of(self.items, items)

    def score_vectors(self) -> ScoreVectors:
        """−‖p − q‖² = 2p · q − ‖q‖² − ‖p‖²."""
        return self._vectors

    @cached_property
    def _vectors(self) -> ScoreVectors:
        users, items = self.users, self.items
        return ScoreVectors(2 * users, items, -items.square().sum(dim=1), -users.square().sum(dim=1))

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        if items is None:
            vectors = self.score_vectors()
            assert vectors.item_bias is not None
            assert vectors.user_bias is not None
            return vectors.users[users] @ self.items.T + vectors.item_bias + vectors.user_bias[users][:, None]
        product = ops.scores_at(self.users, self.items, users, items)  # (b, n)
        own = square_norms(self.users, users)[:, None]
        return (2 * product - square_norms(self.items, items) - own).masked_fill(items < 0, 0.0)


class CML(Recommender):
    """Metric learning with a hinge loss.

    Vectors start as N(0, 1 / dim) and are projected into the ball.

    Args:
        dim: length of a user's and an item's vector, at least 1 (paper: tuned up to 100).
        margin: m, above 0 (published distillation code: 1; the paper tunes it).
        num_negatives: J, unobserved items a row, at least 1 (paper: several; distillation code: 1).
        rank_weight: weigh a row by log(1 + estimated rank of its positive), as the paper does; useful with several
            negatives.
        covariance_weight: c, at least 0 (paper: tuned).
        max_norm: radius of the ball, above 0 (paper: 1).
        score_scale: what list-wise distillation losses multiply the scores by, above 0; scores lie within
            [−4 max_norm², 0], which leaves a softmax over many items nearly flat.
    """

    dot_product = False
    tables = ("user_table", "item_table")

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 20,
        margin: Annotated[float, Field(gt=0)] = 1.0,
        num_negatives: Annotated[int, Field(ge=1)] = 1,
        rank_weight: bool = False,
        covariance_weight: Annotated[float, Field(ge=0)] = 0.0,
        max_norm: Annotated[float, Field(gt=0)] = 1.0,
        score_scale: Annotated[float, Field(gt=0)] = 10.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.margin = margin
        self.rank_weight = rank_weight
        self.covariance_weight = covariance_weight
        self.max_norm = max_norm
        self.score_scale = score_scale

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.user_table = nn.Parameter(normal(self.num_users, self.dim, self.dim**-0.5, generator))
        self.item_table = nn.Parameter(normal(self.num_items, self.dim, self.dim**-0.5, generator))
        self.project()

    def project(self) -> None:
        """Scale the rows that lie outside of the ball onto it; rows inside keep their bits."""
        for table in (self.user_table, self.item_table):
            project_rows(table, self.max_norm)

    def state(self, batch: Batch | None = None) -> CMLState:
        self.project()
        return CMLState(self.user_table, self.item_table, self.score_scale)

    def loss(self, state: State, batch: Batch) -> Tensor:
        num_items = self.num_items if self.rank_weight else None
        loss = hinge_loss(pair_scores(state, batch), self.margin, num_items)
        if self.covariance_weight == 0:
            return loss
        vectors = torch.cat([state.user_embeddings(batch.users), state.item_embeddings(batch.items)])
        return loss + self.covariance_weight * covariance_loss(vectors)


@torch.no_grad()
def project_rows(table: Tensor, max_norm: float) -> None:
    """Scale rows longer than ``max_norm`` to it, in place; doing so again changes nothing."""
    norms = torch.linalg.vector_norm(table, dim=1)
    (outside,) = torch.nonzero(norms > max_norm, as_tuple=True)
    if len(outside) > 0:  # a little inside, so that rounding leaves no row to be scaled again
        shrink = max_norm * (1 - 1e-6) / norms[outside]
        table.index_copy_(0, outside, table[outside] * shrink[:, None])


def hinge_loss(scores: Tensor, margin: float, num_items: int | None = None) -> Tensor:
    """mean w · max(0, m + s⁻ − s⁺) for scores ``(n, 1 + J)`` whose first column is the positive.

    Args:
        scores: negative squared distances.
        margin: m.
        num_items: I for rank weights w; None for w = 1.
    """
    gaps = (margin + scores[:, 1:] - scores[:, :1]).relu()  # (n, J)
    if num_items is None:
        return gaps.mean()
    inside = (gaps.detach() > 0).float().mean(dim=1)
    return (torch.log1p((num_items * inside).floor()) * gaps.mean(dim=1)).mean()


def covariance_loss(vectors: Tensor) -> Tensor:
    """Sum of the squared covariances between different columns of ``vectors`` (n, dim)."""
    centred = vectors - vectors.mean(dim=0)
    covariance = centred.T @ centred / len(vectors)
    return covariance.square().sum() - covariance.diagonal().square().sum()
