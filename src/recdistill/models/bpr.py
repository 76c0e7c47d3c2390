"""BPR matrix factorisation.

Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009.

    s_ui = p_u · q_i
    L = mean over rows (u, i) and negatives j of softplus(−(s_ui − s_uj))

Deviation: the published research code sums over the batch and uses log(sigmoid), which is −inf beyond a gap of
88; here the loss is a mean and softplus is exact.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch, EmbeddingState, Recommender, State


class BPR(Recommender):
    """Matrix factorisation trained with the pairwise ranking loss.

    Args:
        dim: length of a user's and an item's vector, at least 1; papers use 200 to 400 for a teacher, 20 for a
            student.
        num_negatives: unobserved items a row, at least 1 (papers: 1).
        init_std: standard deviation of the initial vectors, above 0 (papers: 0.01).
    """

    tables = ("user_table", "item_table")

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 20,
        num_negatives: Annotated[int, Field(ge=1)] = 1,
        init_std: Annotated[float, Field(gt=0)] = 0.01,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.init_std = init_std

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.user_table = nn.Parameter(normal(self.num_users, self.dim, self.init_std, generator))
        self.item_table = nn.Parameter(normal(self.num_items, self.dim, self.init_std, generator))

    def state(self, batch: Batch | None = None) -> EmbeddingState:
        return EmbeddingState(self.user_table, self.item_table)

    def loss(self, state: State, batch: Batch) -> Tensor:
        return bpr_loss(pair_scores(state, batch))


def normal(rows: int, dim: int, std: float, generator: torch.Generator) -> Tensor:
    """A table drawn from N(0, std²), shape ``(rows, dim)``, float32."""
    return torch.randn(rows, dim, generator=generator) * std


def pair_scores(state: State, batch: Batch) -> Tensor:
    """Scores of each row's positive (column 0) and negatives, shape ``(n, 1 + m)``."""
    if batch.negatives is None:
        return state.scores(batch.row_users, batch.positives[:, None])
    return state.scores(batch.row_users, torch.cat([batch.positives[:, None], batch.negatives], dim=1))


def bpr_loss(scores: Tensor) -> Tensor:
    """mean softplus(−(s⁺ − s⁻)) for scores ``(n, 1 + m)`` whose first column is the positive."""
    return F.softplus(scores[:, 1:] - scores[:, :1]).mean()
