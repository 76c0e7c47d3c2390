"""Dual Correction: lists of what the student ranks too low against what it ranks too high, for users and items.

Lee & Kim, Dual Correction Strategy for Ranking Distillation in Top-N Recommender System, CIKM 2021.

    d_uk = r_S(u, k) − k,   w⁺_uk = tanh(max(ε d_uk, 0)),   w⁻_uk = tanh(max(−ε d_uk, 0))
    L_U = mean over the batch's users u of
        Σ_{i ∈ under_u} [ LSE({s_uj}_{j ∈ under_u from i on}, {s_uj}_{j ∈ over_u}) − s_ui ]
    L_I = the same mean over the batch's positive items, of the users on each item's list
    L = user_weight · L_U + item_weight · L_I

k: places of the teacher's list, from 0; r_S(u, k): the place of the item at k when the student sorts that list.
under_u: up to n items drawn without replacement ∝ w⁺ (too low with the student), in the teacher's order; over_u: as
many ∝ w⁻. Lists are compared every ``refresh`` epochs, draws are new at each step. Equal scores of the student keep
the teacher's order.

Deviations. The authors' code stops with an error where fewer than n entries are mis-ranked; other research code fills
up with entries that are not, so that one may stand on both sides, and leaves the draws unsorted. Here the draws end
with the entries that are mis-ranked and the rest is masked. The paper has an RRD-type term beside these, which the
authors' code lacks: the preset ``rrd-dcd`` adds it.

Published weights λ_U, λ_I on sums over a batch of B rows with n unique users and m unique positives are
``weight · user_weight = λ_U · n / B`` and ``weight · item_weight = λ_I · m / B``: λ_U = 0.01 at B = 2,048 (about 1,240
unique users) is 6e-3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller, list_scores, user_list_scores
from recdistill.distillers.rrd import relaxed_ranking_loss
from recdistill.errors import OptionError
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State

_BLOCK = 1024
"""Lists that are compared at once."""


class DCD(Distiller):
    """Dual Correction Distillation, user side and item side.

    The item side scores lists of users. A model without score vectors does that pair by pair, which is slow.

    Args:
        weight: of this term in the objective, above 0.
        user_weight: of the user side within it, at least 0; 0 leaves it out, and the need of ``top_items``.
        item_weight: of the item side within it, at least 0; 0 leaves it out, and the need of ``top_users``.
        num_drawn: n, under-estimated and as many over-estimated entries of a list, at least 1 (its value in the paper
            is not known; other research code has 100).
        depth: of the teacher's lists, at least 2 (paper: 500).
        slope: ε of tanh(ε d), d in list places, above 0 (other research code: 0.1).
        ranks: ``list`` ranks within the teacher's list; ``catalogue`` ranks each user's items among all unobserved
            ones (the item side stays within its list).
        refresh: epochs between two comparisons of the lists, at least 1 (authors' code: 3).
    """

    needs = frozenset({"top_items", "top_users"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 6e-3,
        user_weight: Annotated[float, Field(ge=0)] = 1.0,
        item_weight: Annotated[float, Field(ge=0)] = 1.0,
        num_drawn: Annotated[int, Field(ge=1)] = 100,
        depth: Annotated[int, Field(ge=2)] = 500,
        slope: Annotated[float, Field(gt=0)] = 0.1,
        ranks: Literal["list", "catalogue"] = "list",
        refresh: Annotated[int, Field(ge=1)] = 3,
    ) -> None:
        super().__init__()
        if user_weight == item_weight == 0:
            raise OptionError("dcd: user_weight and item_weight are both 0", "leave at least one above 0")
        self.weight = weight
        self.user_weight = user_weight
        self.item_weight = item_weight
        self.num_drawn = num_drawn
        self.depth = depth
        self.slope = slope
        self.ranks = ranks
        self.refresh = refresh
        sides = {"top_items": user_weight, "top_users": item_weight}
        self.needs = frozenset(kind for kind, of_side in sides.items() if of_side > 0)

    def list_depths(self) -> dict[str, int]:
        return dict.fromkeys(self.needs, self.depth)

    def setup(self, context: Context) -> None:
        self.generator = context.generator
        self.num_drawn = context.at_most(
            "num_drawn", self.num_drawn, self.depth, "places that are read of its lists"
        )
        if self.user_weight > 0:
            depth = context.drawn_items("depth", self.depth)
            self._add_side("item", context.teacher_top_items(depth))
        if self.item_weight > 0:
            depth = context.drawn_users("depth", self.depth)
            self._add_side("user", context.teacher_top_users(depth))

    def _add_side(self, listed: str, lists: Tensor) -> None:
        """Keep lists of ``listed`` (n, depth), which setup makes again, and the gaps, which a run carries."""
        self.register_buffer(f"{listed}_lists", lists, persistent=False)
        self.register_buffer(f"{listed}_gaps", torch.zeros(lists.shape))

    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch % self.refresh:
            return
        if self.user_weight > 0 and self.ranks == "catalogue":
            ranks = context.student_ranks(self.get_buffer("item_lists").cpu())
            self._refresh("item", ranks, places_in_catalogue)
        elif self.user_weight > 0:
            self._refresh("item", context.student_scores(self.get_buffer("item_lists").cpu()), places_in_list)
        if self.item_weight > 0:
            scores = context.student_user_scores(self.get_buffer("user_lists").cpu())
            self._refresh("user", scores, places_in_list)

    def _refresh(self, listed: str, found: Tensor, places: Callable[[Tensor], Tensor]) -> None:
        """Compare the student's scores or ranks (n, depth) with the teacher's order, block by block."""
        gaps = self.get_buffer(f"{listed}_gaps")
        for rows in torch.arange(len(found)).split(_BLOCK):
            gaps[rows] = signed_weights(places(found[rows]), self.slope).to(gaps)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        loss = torch.zeros((), device=batch.users.device)
        if self.user_weight > 0:
            items = self._draw("item", batch.users)  # (b, 2n)
            scores = list_scores(student, batch.users, items)
            loss = loss + self.user_weight * relaxed_ranking_loss(scores, items, self.num_drawn)
        if self.item_weight > 0:
            users = self._draw("user", batch.unique_positives)  # (m, 2n)
            scores = user_list_scores(student, batch.unique_positives, users)
            loss = loss + self.item_weight * relaxed_ranking_loss(scores, users, self.num_drawn)
        return loss

    def _draw(self, listed: str, rows: Tensor) -> Tensor:
        """Under-estimated entries in the teacher's order, then over-estimated ones, each padded with −1."""
        gaps, lists = self.get_buffer(f"{listed}_gaps"), self.get_buffer(f"{listed}_lists")
        columns = torch.cat(
            [ops.sample_weighted(gaps, self.num_drawn, self.generator, rows, sign) for sign in (1, -1)], dim=1
        )
        found = lists.take(columns.clamp(min=0) + rows[:, None] * lists.shape[1])
        return found.long().masked_fill_(columns < 0, -1)


def places_in_list(scores: Tensor) -> Tensor:
    """Places (from 0) of the entries of each list when it is sorted by the student, shape ``(n, depth)``.

    Args:
        scores: the student's, in the teacher's order, −inf at padding, shape ``(n, depth)``.
    """
    own = torch.arange(scores.shape[1]).expand(scores.shape)
    _, order = ops.top_k_dense(scores, scores.shape[1])
    order = torch.where(order < 0, own, order)  # padding is at the end of both
    return torch.empty_like(order).scatter_(1, order, own)


def places_in_catalogue(ranks: Tensor) -> Tensor:
    """Places from 0 of ranks from 1; padding (rank 0) stays at its own place."""
    own = torch.arange(ranks.shape[1]).expand(ranks.shape)
    return torch.where(ranks > 0, ranks - 1, own)


def signed_weights(places: Tensor, slope: float) -> Tensor:
    """tanh(ε d): w⁺ where the student ranks an entry too low (above 0), −w⁻ where too high, ``(n, depth)``."""
    gaps = places - torch.arange(places.shape[1])
    return (gaps * slope).tanh()
