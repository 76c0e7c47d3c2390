"""IR-RRD, the item side: for an item, users of the teacher's list rank before other users.

Kang et al., Item-side ranking regularized distillation for recommender system, Information Sciences 580, 2021.

    L = mean over n items i of A of
        Σ_{k=1..K} [ LSE(s_{π(k),i}, …, s_{π(K),i}, {s_vi}_{v∈uninteresting}) − s_{π(k),i} ]

This is the regulariser alone. The paper adds it to the base loss and RRD's user side: the preset ``rrd-ir-rrd``.
A: the items that relaxed lists of the batch's users would hold, ``items_per_user`` of each user's top list (positions
drawn with probability ∝ exp(−k / temperature)) and as many uninteresting ones; items without a list of users are left
out. π(1..K): K of the teacher's top users among those who have not interacted with i, drawn by position likewise, in
the teacher's order; uninteresting: L users drawn uniformly from those who neither interacted with i nor are in its top
``depth``. All is drawn anew each epoch, the n items at each step.

Deviations. A covers most of a small catalogue (three quarters of CiteULike), so the paper scores nearly all items at
each step; here n of A are drawn uniformly, whose mean estimates that over A without bias. The authors' code gives items
without a list user 0; here they are skipped. The draws are this term's own, of the same law as those of ``rrd``.

A published weight λ on a sum over A at a batch of B rows is ``weight = λ · |A| / B`` here: λ = 5e-4 at B = 1,024 and
|A| = 19,000 is 9e-3.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Context, Distiller, user_list_scores
from recdistill.distillers.rrd import relaxed_ranking_loss, with_lists
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class IRRRD(Distiller):
    """Item-side Ranking Regularized Distillation, to be added to ``rrd``.

    It scores lists of users. A model without score vectors does that pair by pair, which is slow.

    Args:
        weight: of this term in the objective, above 0.
        num_items: n, items a step, at least 1 (paper: all of A).
        num_interesting: K, users of an item's list in the loss, at least 1 (paper: 20).
        num_uninteresting: L, random users they are to beat, at least 1 (paper: 20).
        items_per_user: interesting, and as many uninteresting, items of each user that make up A, at least 1
            (paper: 40).
        depth: of the teacher's lists of both kinds, at least 1 (paper: 500).
        temperature: of all position draws, in list positions, above 0 (paper: 10).
    """

    needs = frozenset({"top_items", "top_users"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 9e-3,
        num_items: Annotated[int, Field(ge=1)] = 1024,
        num_interesting: Annotated[int, Field(ge=1)] = 20,
        num_uninteresting: Annotated[int, Field(ge=1)] = 20,
        items_per_user: Annotated[int, Field(ge=1)] = 40,
        depth: Annotated[int, Field(ge=1)] = 500,
        temperature: Annotated[float, Field(gt=0)] = 10.0,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.num_items = num_items
        self.num_interesting = num_interesting
        self.num_uninteresting = num_uninteresting
        self.items_per_user = items_per_user
        self.depth = depth
        self.temperature = temperature

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.depth, "top_users": self.depth}

    def setup(self, context: Context) -> None:
        data = context.interactions
        self.generator = context.generator
        self.items_per_user = context.drawn_items("items_per_user", self.items_per_user)
        self.num_interesting = context.drawn_users("num_interesting", self.num_interesting)
        self.num_uninteresting = context.drawn_users("num_uninteresting", self.num_uninteresting)
        of_users = context.teacher_top_items(self.depth)
        of_items = context.teacher_top_users(self.depth)
        of_users = context.with_room(of_users, self.items_per_user, self.items_per_user)
        of_items = context.with_room(of_items, self.num_interesting, self.num_uninteresting, of="item")
        self._items, self._users = Draws(data, of_users), Draws(data.transpose(), of_items)
        self.register_buffer("has_list", of_items[:, 0] >= 0, persistent=False)
        items, users = 2 * self.items_per_user, self.num_interesting + self.num_uninteresting
        self.register_buffer("items", torch.full((data.num_users, items), -1, dtype=torch.int32))
        self.register_buffer("users", torch.full((data.num_items, users), -1, dtype=torch.int32))

    def start_epoch(self, epoch: int, context: Context) -> None:
        per_user, temperature, generator = self.items_per_user, self.temperature, context.generator
        self.get_buffer("items").copy_(self._items.draw(per_user, per_user, temperature, generator))
        counts = self.num_interesting, self.num_uninteresting
        self.get_buffer("users").copy_(self._users.draw(*counts, temperature, generator))

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        chosen = self._choose(batch)  # (n,)
        users = self.get_buffer("users")[chosen].long()  # (n, K + L)
        scores = user_list_scores(student, chosen, users)
        if len(chosen) == 0:
            return scores.sum()
        return relaxed_ranking_loss(scores, users, self.num_interesting)

    def _choose(self, batch: Batch) -> Tensor:
        """At most n items, uniformly from those of A that have a list, in any order."""
        drawn = self.get_buffer("items")[batch.users]
        candidates, _ = ops.unique_inverse(drawn[drawn >= 0].long(), batch.num_items)  # A
        candidates = candidates[self.get_buffer("has_list")[candidates]]
        if len(candidates) <= self.num_items:
            return candidates
        order = torch.randperm(len(candidates), generator=self.generator)[: self.num_items]
        return candidates[order.to(candidates.device)]


class Draws:
    """What relaxed lists draw for every row: entries of the row's top list, and others that are not in it.

    Args:
        observed: pairs of rows with entries that are neither listed nor drawn.
        lists: ids, best first, int32, padded with −1, one row a row, shape ``(rows, depth)``.
    """

    def __init__(self, observed: Interactions, lists: Tensor) -> None:
        self._lists = lists
        self._lengths = (lists >= 0).sum(dim=1)
        self._taken = with_lists(observed, lists)

    def draw(self, k: int, others: int, temperature: float, generator: torch.Generator) -> Tensor:
        """k listed ids in list order, then ``others`` more, each part padded with −1, ``(rows, k + others)``."""
        positions = ops.sample_positions(self._lengths, k, temperature, generator)
        listed = self._lists.gather(1, positions.clamp(min=0)).long().masked_fill_(positions < 0, -1)
        rows = torch.arange(len(self._lists))
        unlisted = self._taken.sample_unobserved(rows, others, generator, replace=False)
        return torch.cat([listed, unlisted], dim=1)
