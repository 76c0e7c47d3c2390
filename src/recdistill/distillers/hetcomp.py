"""HetComp: many unlike teachers into one student, by rankings that grow harder as it learns.

Kang, Kweon, Lee, Lian, Xie, Yu, Distillation from Heterogeneous Models for Top-K Recommendation, WWW 2023.

**Dynamic knowledge construction.** Teacher x has states 0..n_x−1 of its training, the last one final; v[u, x] says
which one teaches user u. Every ``refresh`` epochs v[u, x] moves on by one if, of the student's list as it is now,

    D_last / D > α,   D = D@K(student's list of u, teacher x's list at state v + 1)

D_last is the same for the student at the time of the move before, and D@K is 1 − NDCG@K (see ``curriculum``). Then the
user's target ranking R_u is made again: the sum of the teachers' e^{−rank/10} at their states v[u, ·], best K first.
An ensemble's own temperature, weights, consistency and debiasing hold for it too, see ``knowledge/ensemble.py``.

**Adaptive transfer.** With O_u the first K/10 of the user's observed items in the teachers' common order, and
Z_u(R) = log Σ_j exp(s_uj) over the items j that are neither observed nor in R,

    L_O = mean over the batch's users u of Σ_{k ∈ O_u ∪ R_u} [ log(exp(s_uk) + exp(Z_u(R_u))) − s_uk ]
    L_F = the same mean of PL(O_u, Z_u(R_u^½)) + ½ [ PL(R_u^½, Z_u(R_u^½)) + PL(R_u^⅒, Z_u(R_u^⅒)) ]

R^½ and R^⅒ are the first half and tenth of R, PL the Plackett-Luce loss of an ordered list over what belongs below it.
L_O teaches which items are at the top; L_F, from the epoch on in which all pointers have reached the final states,
their order. Observed items are part of both, so that the paper has no other loss: ``base_weight = 0``.

Deviations. In the released code α · 0.995^n falls below 1 after 100 epochs and a student that has come no nearer passes
too, so that from then on all pointers move at every refresh; here α stays at ``floor`` or above, a pointer that has
waited ``patience`` times moves, and the former is ``floor=0, patience=0, worse_passes=True, gain="student"``. Its gain
weighs a hit by the student's own place, which does not see the teacher's order. Scores are clamped there to ±40 and
Z is a difference of sums; here all is exact in log space. A teacher may have any number of states, one included.

Published weights .01 (L_O) and .005 (L_F) are of sums over the users of a batch of B = 1,024 rows, about 870 of them,
and there is no other loss: ``base_weight = 0``, ``weight`` = .01 · 870 / 1024 = 8.5e-3, ``fine_weight`` = .5 within it;
their weight decay of 1e-5 is 1e-8. The default weight is for use beside a base loss, as in docs/reproduction.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.distillers.curriculum import Curriculum, Gain, Gate, Order, first_observed
from recdistill.distillers.normaliser import draw_candidates, log_normaliser
from recdistill.distillers.rrd import with_lists
from recdistill.knowledge.base import Member, TeacherState
from recdistill.knowledge.ensemble import observed_importance
from recdistill.models.base import Batch, State


class HetComp(Distiller):
    """HetComp: an ensemble of teachers and their training trajectories, easy to hard.

    Args:
        weight: of this term in the objective, above 0 (paper: 8.5e-3, without a base loss).
        fine_weight: of the fine loss within it, above 0 (paper: 0.5).
        depth: K, items of a user's target ranking, at least 1 (paper: 100), or as many as all lists have; the fine loss
            reads its first half and tenth, and as many observed items as a tenth.
        discrepancy_depth: K of D@K, at least 1 (authors' code: 50).
        refresh: p, epochs between two looks at the discrepancies, at least 1 (paper: 10); the first only takes them.
        threshold: α, what D_last / D must exceed for the next state, above 0 (paper: 1.05).
        decay: of the threshold at each refresh, in (0, 1] (authors' code: 0.995).
        floor: what the threshold never falls below, at least 0 (authors' code: none).
        patience: refreshes after which a pointer that has not moved moves all the same, at least 0; 0 for never
            (authors' code). Three let a teacher of four states be final by epoch 100, which is when the gate of the
            authors' code opens for all.
        worse_passes: whether a discrepancy that has grown passes too (authors' code: yes).
        gain: of a hit in D@K: by the item's rank with the ``teacher``, or by its place with the ``student``
            (authors' code).
        construction: ``dynamic``; or, to see what it is worth, ``final``, the final states from the start, and
            ``random``, each user's states before the final one in random order.
        transfer: ``adaptive``; or one of its losses throughout, ``overall`` or ``fine``.
        overall_epochs: epochs before which the fine loss does not begin, at least 0; for teachers without a
            trajectory, whose pointers are final from the start.
        observed: whose order of a user's observed items is O: that of the ``teachers``, or ``none``, an empty O, for
            teachers that left lists alone. O is empty, too, where users take items again: lists hold observed items.
        num_sampled: items drawn at each step, at least 1, that Z is estimated from, for large catalogues; unbiased for
            the sum, and too low for its logarithm by about cv² / (2 · num_sampled), with cv the coefficient of
            variation of exp(s) over a user's items. By default Z is exact.
    """

    needs = frozenset({"trajectory", "observed_scores"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.1,
        fine_weight: Annotated[float, Field(gt=0)] = 0.5,
        depth: Annotated[int, Field(ge=1)] = 100,
        discrepancy_depth: Annotated[int, Field(ge=1)] = 50,
        refresh: Annotated[int, Field(ge=1)] = 10,
        threshold: Annotated[float, Field(gt=0)] = 1.05,
        decay: Annotated[float, Field(gt=0, le=1)] = 0.995,
        floor: Annotated[float, Field(ge=0)] = 1.0,
        patience: Annotated[int, Field(ge=0)] = 3,
        worse_passes: bool = False,
        gain: Gain = "teacher",
        construction: Order = "dynamic",
        transfer: Literal["adaptive", "overall", "fine"] = "adaptive",
        overall_epochs: Annotated[int, Field(ge=0)] = 0,
        observed: Literal["teachers", "none"] = "teachers",
        num_sampled: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.fine_weight = fine_weight
        self.depth = depth
        self.discrepancy_depth = discrepancy_depth
        self.refresh = refresh
        self.threshold = threshold
        self.decay = decay
        self.floor = floor
        self.patience = patience
        self.worse_passes = worse_passes
        self.gain: Gain = gain
        self.construction: Order = construction
        self.transfer = transfer
        self.overall_epochs = overall_epochs
        self.observed = observed
        self.num_sampled = num_sampled
        if observed == "none":
            self.needs = frozenset({"trajectory"})

    def setup(self, context: Context) -> None:
        self._interactions, self.generator = context.interactions, context.generator
        if self.num_sampled is not None:
            there_are = context.interactions.num_items
            self.num_sampled = context.at_most(
                "num_sampled", self.num_sampled, there_are, "items that there are"
            )
        members = context.knowledge.members(max(self.depth, self.discrepancy_depth))
        self._check(members, context)
        gate = Gate(
            self.refresh,
            self.threshold,
            self.decay,
            self.floor,
            self.patience,
            self.worse_passes,
            self.gain,
        )
        self.curriculum = Curriculum(
            members,
            context.interactions,
            gate,
            self.construction,
            context.generator,
            context.knowledge.aggregation(),
        )
        self.register_buffer("targets", self.curriculum.targets(self._ranks))
        self.register_buffer("fine", torch.zeros((), dtype=torch.bool))
        self.register_buffer("ordered", self._ordered(members, context), persistent=False)
        self._left_out: Interactions | None = None

    def _check(self, members: Sequence[Member], context: Context) -> None:
        """Take the depth that all lists have, and say what is not as asked for."""
        have = members[0].states[0].shape[1]
        self._ranks = max(1, min(self.depth, have))
        if have < min(self.depth, context.interactions.num_items):
            context.note(f"{context.name}.depth is {have}, which all lists have, not {self.depth}")
        if self.construction != "final" and all(len(member.states) == 1 for member in members):
            context.note(
                f"{context.name}: no teacher has more than one state, so nothing goes from easy to hard;"
                " training.trajectory keeps them, and extract stores them"
            )

    def _ordered(self, members: Sequence[Member], context: Context) -> Tensor:
        """O of each user, ids ``(U, K / 10)`` padded with −1."""
        if self.observed == "none" or context.interactions.has_repeats:
            return torch.empty(context.interactions.num_users, 0, dtype=torch.int32)
        how = context.knowledge.aggregation()
        weights = how.weights or (1.0,) * len(members)
        known = [
            (member.observed_scores, weight)
            for member, weight in zip(members, weights, strict=True)
            if member.observed_scores is not None
        ] or [(context.knowledge.observed_scores(), 1.0)]
        importances = observed_importance(
            [scores for scores, _ in known],
            context.interactions.indptr,
            temperature=how.temperature,
            weights=[weight for _, weight in known],
        )
        return first_observed(importances, context.interactions, self._tenth)

    @property
    def _tenth(self) -> int:
        return max(1, self._ranks // 10)

    def start_epoch(self, epoch: int, context: Context) -> None:
        targets, fine = self.get_buffer("targets"), self.get_buffer("fine")
        if epoch > 0 and epoch % self.refresh == 0:
            student = context.student_top_items(self.discrepancy_depth)[0]
            if self.curriculum.move(epoch, student):
                targets.copy_(self.curriculum.targets(self._ranks))
                self._left_out = None
            self.curriculum.look_at_targets(student, targets)
        if self.transfer != "overall" and not bool(fine):
            over = epoch >= self.overall_epochs and self.curriculum.is_over()
            if self.transfer == "fine" or over:
                fine.fill_(True)
                self._left_out = None

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users = batch.users
        fine = bool(self.get_buffer("fine"))
        observed = self.get_buffer("ordered")[users].long()  # (b, K / 10)
        ranked = self.get_buffer("targets")[users].long()[:, : self._width(fine)]  # (b, K), (b, K / 2)
        scores = list_scores(student, users, torch.cat([observed, ranked], dim=1))
        below = log_normaliser(student, users, self._excluded(users), self._candidates(users))  # (b,)
        if not fine:
            return overall_loss(scores, torch.cat([observed, ranked], dim=1) >= 0, below).mean()
        of_observed, half = scores.tensor_split([observed.shape[1]], dim=1)
        lengths = (observed >= 0).sum(dim=1), (ranked >= 0).sum(dim=1)
        losses = fine_loss(of_observed, half, lengths, self._tenth, below)
        return self.fine_weight * losses.mean()

    def _width(self, fine: bool) -> int:
        """How much of the target ranking the loss reads."""
        return max(1, self._ranks // 2) if fine else self._ranks

    def _excluded(self, users: Tensor) -> ops.Rows:
        """What is no part of the normaliser: the users' observed items and the ranked ones."""
        if self._left_out is None:
            width = self._width(bool(self.get_buffer("fine")))
            joined = with_lists(self._interactions.unlisted, self.get_buffer("targets").cpu()[:, :width])
            indptr, items = joined.indptr.to(users.device), joined.items.to(users.device)
            self._left_out = Interactions(joined.num_users, joined.num_items, indptr, items, indptr, items)
        return self._left_out.rows(users)

    def _candidates(self, users: Tensor) -> Tensor | None:
        if self.num_sampled is None:
            return None
        return draw_candidates(self._interactions.num_items, self.num_sampled, self.generator).to(
            users.device
        )

    def facts(self) -> dict[str, float]:
        """Which loss it is, and where the curriculum is."""
        return {"fine": float(self.get_buffer("fine")), **self.curriculum.facts()}

    def pending(self) -> str:
        """The final states, and the loss of the order that waits for them."""
        if not self.curriculum.is_over():
            return self.curriculum.where()
        waits = self.transfer == "adaptive" and not bool(self.get_buffer("fine"))
        return "the loss of the order has not begun" if waits else ""


def overall_loss(scores: Tensor, present: Tensor, below: Tensor) -> Tensor:
    """Σ_k [ log(exp(s_k) + exp(Z)) − s_k ] of each user's list as a set.

    Args:
        scores: shape ``(b, n)``.
        present: what is no padding, shape ``(b, n)``.
        below: Z, shape ``(b,)``.

    Returns:
        Shape ``(b,)``.
    """
    return (F.softplus(below[:, None] - scores) * present).sum(dim=1)


def fine_loss(
    observed: Tensor, half: Tensor, lengths: tuple[Tensor, Tensor], tenth: int, below: Tensor
) -> Tensor:
    """PL(O, Z(R^½)) + ½ [ PL(R^½, Z(R^½)) + PL(R^⅒, Z(R^⅒)) ] of each user; Z(R^⅒) has the rest of R^½ too.

    Args:
        observed: scores of O in the teachers' order, shape ``(b, o)``.
        half: scores of R^½ in the teachers' order, shape ``(b, h)``.
        lengths: how many of ``observed`` and of ``half`` are no padding, shape ``(b,)`` each.
        tenth: how many of ``half`` are R^⅒.
        below: Z(R^½), shape ``(b,)``.

    Returns:
        Shape ``(b,)``.
    """
    num_observed, num_ranked = lengths
    of_observed = ops.plackett_luce(observed, below[:, None], num_observed)
    of_half = ops.plackett_luce(half, below[:, None], num_ranked)
    below_tenth = torch.cat([below[:, None], half[:, tenth:]], dim=1)
    num_first = num_ranked.clamp(max=tenth)
    of_tenth = ops.plackett_luce(half[:, :tenth], below_tenth, num_first, 1 + num_ranked - num_first)
    return of_observed + (of_half + of_tenth) / 2
