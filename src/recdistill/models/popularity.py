"""Popularity: every user gets the most observed items. The floor that any model has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch, Recommender, ScoreVectors, no_embeddings


class PopularityState:
    """Scores that are the same for every user.

    Args:
        counts: observed pairs of each item, shape ``(I,)``, float32.
        num_users: number of users.
    """

    kinds: frozenset[str] = frozenset({"scores"})
    score_scale: float = 1.0

    def __init__(self, counts: Tensor, num_users: int) -> None:
        self.counts = counts
        self.num_users = num_users
        self.num_items = counts.numel()

    def user_embeddings(self, users: Tensor) -> Tensor:
        raise no_embeddings("popularity", self.kinds)

    def item_embeddings(self, items: Tensor) -> Tensor:
        raise no_embeddings("popularity", self.kinds)

    def score_vectors(self) -> ScoreVectors:
        ones = torch.ones(1, 1, device=self.counts.device).expand(self.num_users, 1)
        return ScoreVectors(ones, self.counts[:, None])

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        if items is None:
            return self.counts.expand(users.numel(), -1)
        return torch.where(items >= 0, self.counts[items.clamp(min=0)], 0.0)


class Popularity(Recommender):
    """Ranks items by the number of users who interacted with them in train."""

    closed_form = True
    storable = frozenset[str]()
    tables = ("counts",)

    @validated
    def __init__(self) -> None:
        super().__init__()

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.register_buffer("counts", torch.zeros(self.num_items))

    def fit(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.get_buffer("counts").copy_(interactions.item_counts)

    def state(self, batch: Batch | None = None) -> PopularityState:
        return PopularityState(self.get_buffer("counts"), self.num_users)
