"""Relaxed Ranking Distillation, user side.

Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, section 3.3.

    L = mean over the batch's users u of
        Σ_{k=1..K} [ LSE(s_{u,π(k)}, …, s_{u,π(K)}, {s_uj}_{j∈uninteresting}) − s_{u,π(k)} ]

π(1..K): K of the teacher's top unobserved items, in the teacher's order (eqs. 6, 7); uninteresting: L items drawn
uniformly from those that are neither observed nor in the teacher's top ``depth``. Positions are drawn without
replacement with probability ∝ exp(−k / temperature), or the first K are taken straight. The paper's denominator
starts its uninteresting items at j = K; the authors' code uses disjoint sets, as here. Exact in log space, where
the released code overflows for scores above 88.

A published weight λ on a sum over a batch of B rows with n unique users is ``weight = λ · n / B`` here: λ = 1e-3 at
B = 1,024 (about 870 unique users) is 8.5e-4.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class RRD(Distiller):
    """Relaxed Ranking Distillation.

    Args:
        weight: of this term in the objective, above 0.
        num_interesting: K, items of the teacher's list in the loss, at least 1 (paper: 40).
        num_uninteresting: L, random items they are to beat, at least 1 (paper: 40).
        depth: of the teacher's list; nothing in it is drawn as uninteresting (paper: 500). Where a list would leave
            fewer than L items outside, it ends earlier, which is said; of what is too little for both, each has half.
        temperature: of the position draw, in list positions, above 0 (paper: 10).
        sampling: ``position`` draws K positions as the paper does; ``none`` takes the first K, which the authors
            later found to work better.
        resample_every: epochs between two draws, at least 1 (paper: 1).
    """

    needs = frozenset({"top_items"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1e-3,
        num_interesting: Annotated[int, Field(ge=1)] = 40,
        num_uninteresting: Annotated[int, Field(ge=1)] = 40,
        depth: Annotated[int, Field(ge=1)] = 500,
        temperature: Annotated[float, Field(gt=0)] = 10.0,
        sampling: Literal["position", "none"] = "position",
        resample_every: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.num_interesting = num_interesting
        self.num_uninteresting = num_uninteresting
        self.depth = depth
        self.temperature = temperature
        self.sampling = sampling
        self.resample_every = resample_every

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.depth}

    def setup(self, context: Context) -> None:
        users = context.interactions.num_users
        self.num_interesting = context.drawn_items("num_interesting", self.num_interesting)
        self.num_interesting = context.at_most(
            "num_interesting", self.num_interesting, self.depth, "places that are read of its lists"
        )
        self.num_uninteresting = context.drawn_items("num_uninteresting", self.num_uninteresting)
        width = self.num_interesting + self.num_uninteresting
        self.register_buffer("drawn", torch.full((users, width), -1, dtype=torch.int32))
        lists = context.teacher_top_items(self.depth)
        self._top = context.with_room(lists, self.num_interesting, self.num_uninteresting)
        self._lengths = (self._top >= 0).sum(dim=1)
        self._taken = with_lists(context.interactions, self._top)

    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch % self.resample_every:
            return
        users = torch.arange(context.interactions.num_users)
        interesting = draw_positions(
            self._lengths, self.num_interesting, self.sampling, self.temperature, context.generator
        )
        ids = self._top.gather(1, interesting.clamp(min=0))
        ids.masked_fill_(interesting < 0, -1)
        uninteresting = self._taken.sample_unobserved(
            users, self.num_uninteresting, context.generator, replace=False
        )
        drawn = self.get_buffer("drawn")
        drawn[:, : self.num_interesting] = ids.to(drawn.device)
        drawn[:, self.num_interesting :] = uninteresting.to(drawn.device)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("drawn")[batch.users].long()  # (b, K + L)
        return relaxed_ranking_loss(list_scores(student, batch.users, items), items, self.num_interesting)


def relaxed_ranking_loss(scores: Tensor, items: Tensor, num_interesting: int) -> Tensor:
    """Mean over users of the relaxed permutation loss.

    Args:
        scores: the student's, shape ``(b, K + L)``: interesting items in the teacher's order, then the others.
        items: the ids behind them, padded with −1 at the end of either part, shape ``(b, K + L)``.
        num_interesting: K.
    """
    present = items >= 0
    return ops.plackett_luce(
        scores[:, :num_interesting],
        scores[:, num_interesting:],
        present[:, :num_interesting].sum(dim=1),
        present[:, num_interesting:].sum(dim=1),
    ).mean()


def draw_positions(
    lengths: Tensor, k: int, sampling: str, temperature: float, generator: torch.Generator
) -> Tensor:
    """List positions (0-based, ascending, padded with −1) of the interesting items, shape ``(n, k)``, int64."""
    if sampling == "position":
        return ops.sample_positions(lengths, k, temperature, generator)
    first = torch.arange(k).expand(len(lengths), k)
    return torch.where(first < lengths[:, None], first, -1)


def with_lists(interactions: Interactions, ids: Tensor) -> Interactions:
    """The observed pairs together with ranked lists (U, depth, padded with −1): what is not uninteresting."""
    num_items = interactions.num_items
    counts: list[Tensor] = []
    items: list[Tensor] = []
    for rows in torch.arange(interactions.num_users).split(4096):
        owner, item = interactions.rows(rows).pairs
        listed = ids[rows].long()
        first = torch.arange(len(rows)) * num_items  # key of a row's item 0
        keys = torch.cat([(listed + first[:, None])[listed >= 0], owner * num_items + item])
        keys.numpy().sort()  # several times faster than torch's
        keys = keys[torch.cat([keys.new_ones(1, dtype=torch.bool), keys.diff() > 0])[: len(keys)]]
        owners = torch.div(keys, num_items, rounding_mode="floor")
        counts.append(torch.bincount(owners, minlength=len(rows)))
        items.append((keys - owners * num_items).int())
    indptr = torch.zeros(interactions.num_users + 1, dtype=torch.int64)
    torch.cumsum(torch.cat(counts), 0, out=indptr[1:])
    joined = torch.cat(items)
    return Interactions(interactions.num_users, num_items, indptr, joined, indptr, joined)
