"""Ranking Distillation: the teacher's top items are labelled as positives, weighted by rank.

Tang and Wang, Ranking Distillation: Learning Compact Ranking Models With High Performance for Recommender System,
KDD 2018.

    L = mean over the batch's users u of  Σ_{r=1..K} w_ur · softplus(−s_{u,π(r)})
    a_r  = exp(−r / λ) / Σ_{r'} exp(−r' / λ)                                           (position importance)
    r̂_ur = ⌊(I − 1) · #{j ∈ E_u : s_uj > s_{u,π(r)}} / |E_u|⌋ + 1                      (the student's rank, estimated)
    b_ur = max(0, tanh(μ (r̂_ur − r)))                                                  (ranking discrepancy)
    w_ur = a_r in the first epochs, then a_r · b_ur, scaled to sum 1 over r; no gradient flows through it

π(1..K): the teacher's top unobserved items; s: the student's scores; I: number of items; E_u: unobserved items drawn
uniformly, with repeats, once an epoch; λ ``temperature``; μ ``slope``.

Both ranks count from 1: later re-implementations compare r̂ from 1 with r from 0, so that an item in its right place
still has a weight. The authors draw E_u for every training row and do not scale a · b to sum 1 (``normalise=False``);
their list leaves out the current target alone, where this one leaves out all observed items. A list shorter than K
shares the importance among what it has.

The authors' α is on a mean over training rows: ``weight = α``. A published weight λ on a sum over a batch of B rows is
``weight = λ`` where a user counts once a row, and ``λ · n / B`` where the n unique users count once.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class RD(Distiller):
    """Ranking Distillation.

    Args:
        weight: of this term in the objective, above 0 (paper: 1).
        k: K, items of the teacher's list in the loss, at least 1 (paper: 10).
        temperature: λ, of the position importance, in list positions, above 0 (paper: 1, with which ranks beyond
            the tenth have less than 1e-4 of the weight).
        slope: μ, of the ranking discrepancy per rank, above 0 (paper: 0.1).
        num_samples: |E_u|, items by which the student's ranks are estimated, at least 1 (paper: 100).
        static_epochs: epochs that weigh by position alone, at least 0 (paper: 10 of 50).
        normalise: scale the weights of a user to sum 1 once the discrepancy is in them (paper: no; later work:
            yes). Without it the loss fades as the student comes to agree.
    """

    needs = frozenset({"top_items"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        k: Annotated[int, Field(ge=1)] = 10,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        slope: Annotated[float, Field(gt=0)] = 0.1,
        num_samples: Annotated[int, Field(ge=1)] = 100,
        static_epochs: Annotated[int, Field(ge=0)] = 10,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.k = k
        self.temperature = temperature
        self.slope = slope
        self.num_samples = num_samples
        self.static_epochs = static_epochs
        self.normalise = normalise

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.k}

    def setup(self, context: Context) -> None:
        self.k = context.drawn_items("k", self.k)
        users = context.interactions.num_users
        self.register_buffer("top", context.teacher_top_items(self.k), persistent=False)
        self.register_buffer("drawn", torch.full((users, self.num_samples), -1, dtype=torch.int32))
        self.register_buffer("dynamic", torch.zeros((), dtype=torch.bool))

    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch < self.static_epochs:
            return
        everyone = torch.arange(context.interactions.num_users)
        drawn = context.interactions.sample_unobserved(everyone, self.num_samples, context.generator)
        self.get_buffer("drawn").copy_(drawn)
        self.get_buffer("dynamic").fill_(True)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("top")[batch.users].long()  # (b, K)
        scores = student.scores(batch.users, items)
        weights = position_importance(items >= 0, self.temperature)
        if bool(self.get_buffer("dynamic")):
            drawn = self.get_buffer("drawn")[batch.users].long()  # (b, |E_u|)
            with torch.no_grad():
                others = student.scores(batch.users, drawn)
            ranks = estimated_ranks(scores.detach(), others, drawn >= 0, student.num_items)
            weights = weights * rank_discrepancy(ranks, self.slope)
            if self.normalise:
                weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return weighted_positives(scores, weights)


def weighted_positives(scores: Tensor, weights: Tensor) -> Tensor:
    """Mean over users of Σ_r w_r softplus(−s_r), for scores and weights of shape ``(b, K)``."""
    return (weights.to(scores.dtype) * F.softplus(-scores)).sum(dim=1).mean()


def position_importance(present: Tensor, temperature: float) -> Tensor:
    """a_r of the list entries that are there (``present`` (b, K), bool), 0 elsewhere, float64; rows sum to 1 or 0."""
    ranks = torch.arange(1, present.shape[1] + 1, dtype=torch.float64, device=present.device)
    logits = (-ranks / temperature).expand(present.shape).masked_fill(~present, -torch.inf)
    return torch.softmax(logits, dim=1).masked_fill(~present, 0.0)


def estimated_ranks(scores: Tensor, others: Tensor, drawn: Tensor, num_items: int) -> Tensor:
    """r̂: the ranks (from 1) of ``scores`` (b, K) among all items, by how many of a sample beat them.

    Args:
        scores: shape ``(b, K)``.
        others: scores of the sample, shape ``(b, n)``.
        drawn: which of the sample are there, shape ``(b, n)``, bool.
        num_items: I.

    Returns:
        ``(b, K)`` int64.
    """
    others = others.masked_fill(~drawn, -torch.inf)
    beaten_by = (others[:, None, :] > scores[:, :, None]).byte().sum(dim=2)  # (b, K), of n comparisons each
    size = drawn.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.div((num_items - 1) * beaten_by, size, rounding_mode="floor") + 1


def rank_discrepancy(ranks: Tensor, slope: float) -> Tensor:
    """b_r = max(0, tanh(μ (r̂_r − r))), float64, of estimated ranks (b, K)."""
    wanted = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    return torch.tanh(slope * (ranks - wanted).double()).clamp(min=0)
