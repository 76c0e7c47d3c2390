"""Collaborative Distillation: the teacher's soft labels of unobserved items that a guide's ranking proposes.

Lee, Choi, Lee and Shim, Collaborative Distillation for Top-N Recommendation, ICDM 2019.

    L = mean over the batch's users u of  Σ_{i∈S_u} [ softplus(s_ui) − q_ui · s_ui ],   q_ui = σ((t_ui + t₂) / t₁)

which is the binary cross-entropy between q and σ(s). t, s: scores of the teacher and the student, on the models' score
scale; t₁ ``label_temperature``, t₂ ``label_shift``; S_u: n distinct unobserved items. The guide, whose top N
unobserved items are ranked k = 1..N, is the student as it is now or the teacher; or S_u is uniform. Two laws of a
draw:

    tournament:   P(k) = F_k² − F_{k+1}²,  F_k = Σ_{m≥k} q_m,  q_k ∝ exp(−k / (N·T))   (two draws, the better is kept)
    exponential:  P(k) ∝ exp(−k / T)

With the published N = 3,000 and T = 20 the tournament falls nearly linearly to 0 at rank N: its mean rank is 988, and
7 % of the draws are among the first 100. Published code means to leave out repeated items but compares them by
identity, so that repeats stay; here the n items are distinct, each drawn by the law among those that are left. Its
uniform draw may hit observed items; here none is observed. All guides draw anew every ``resample_every`` epochs.

A published weight λ on a sum over a batch of B rows is ``weight = λ`` where a user counts once a row, and
``λ · n / B`` where the n unique users count once.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recdistill import ops
from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State
from recdistill.models.ranking import scores_of

_BLOCK = 1 << 22
"""Numbers that one block of users holds."""


class CD(Distiller):
    """Collaborative Distillation.

    With the teacher as guide its ``top_items`` are enough; the other guides ask it for the scores of any item.

    Args:
        weight: of this term in the objective, above 0 (re-implementations: 0.5).
        guide: whose ranking proposes items: ``student``, ``teacher``, or ``random`` for none.
        num_sampled: n, items of each user, at least 1 (re-implementations: 2 or 50).
        depth: N, of the guide's ranking, at least 1 (re-implementations: 3,000).
        law: of the positions in it; the published one is ``tournament``, nearly flat with the default T;
            ``exponential`` stays near the top.
        temperature: T, above 0: of the tournament in multiples of N, else in positions (re-implementations: 20).
        label_temperature: t₁ of the labels, above 0 (re-implementations: 2).
        label_shift: t₂ of the labels, any number (re-implementations: 0).
        resample_every: epochs between two draws, at least 1 (re-implementations: 1 for the student's ranking).
    """

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.5,
        guide: Literal["student", "teacher", "random"] = "student",
        num_sampled: Annotated[int, Field(ge=1)] = 2,
        depth: Annotated[int, Field(ge=1)] = 3000,
        law: Literal["tournament", "exponential"] = "tournament",
        temperature: Annotated[float, Field(gt=0)] = 20.0,
        label_temperature: Annotated[float, Field(gt=0)] = 2.0,
        label_shift: float = 0.0,
        resample_every: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.guide = guide
        self.num_sampled = num_sampled
        self.depth = depth
        self.law = law
        self.temperature = temperature
        self.label_temperature = label_temperature
        self.label_shift = label_shift
        self.resample_every = resample_every
        self.needs = frozenset({"top_items" if guide == "teacher" else "scores"})

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.depth} if self.guide == "teacher" else {}

    def setup(self, context: Context) -> None:
        self.num_sampled = context.drawn_items("num_sampled", self.num_sampled)
        shape = context.interactions.num_users, self.num_sampled
        self.register_buffer("drawn", torch.full(shape, -1, dtype=torch.int32))
        self.register_buffer("labels", torch.zeros(shape))

    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch % self.resample_every:
            return
        ids, scores = self._of_teacher(context) if self.guide == "teacher" else self._of_any(context)
        self.get_buffer("drawn").copy_(ids)
        scores = scores * context.knowledge.score_scale
        labels = torch.sigmoid((scores + self.label_shift) / self.label_temperature)
        self.get_buffer("labels").copy_(labels)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("drawn")[batch.users].long()  # (b, n)
        labels = self.get_buffer("labels")[batch.users]
        return soft_label_loss(list_scores(student, batch.users, items), labels, items >= 0)

    def _of_teacher(self, context: Context) -> tuple[Tensor, Tensor]:
        """Ids and teacher's scores (U, n), drawn from the teacher's lists in blocks of users."""
        found: list[tuple[Tensor, Tensor]] = []
        for users in torch.arange(context.interactions.num_users).split(max(1, _BLOCK // self.depth)):
            top = context.knowledge.top_items(users, self.depth)
            positions = self._positions(top.lengths, context.generator)
            chosen = positions.clamp(min=0)
            absent = positions < 0
            ids = top.ids.gather(1, chosen).masked_fill(absent, -1)
            found.append((ids, top.scores.gather(1, chosen).masked_fill(absent, -torch.inf)))
        return torch.cat([ids for ids, _ in found]), torch.cat([scores for _, scores in found])

    def _of_any(self, context: Context) -> tuple[Tensor, Tensor]:
        """Ids and teacher's scores (U, n) of items from the student's ranking, or from all unobserved items."""
        interactions = context.interactions
        everyone = torch.arange(interactions.num_users)
        if self.guide == "student":
            lengths = (interactions.num_items - interactions.unlisted.user_counts).clamp(max=self.depth)
            ids = context.student_items_at(self._positions(lengths, context.generator))
        else:
            ids = interactions.sample_unobserved(everyone, self.num_sampled, context.generator, replace=False)
        return ids, scores_of(context.knowledge, everyone, ids)

    def _positions(self, lengths: Tensor, generator: torch.Generator) -> Tensor:
        if self.law == "exponential":
            return ops.sample_positions(lengths, self.num_sampled, self.temperature, generator)
        return tournament_positions(lengths, self.num_sampled, self.depth * self.temperature, generator)


def soft_label_loss(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Mean over users of Σ_i BCE(label, σ(score)) over the items that are there; all of shape ``(b, n)``."""
    terms = F.softplus(scores) - labels.to(scores.dtype) * scores
    return terms.masked_fill(~present, 0.0).sum(dim=1).mean()


def tournament_positions(lengths: Tensor, n: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw n distinct positions of each list, one after the other, by the law of :func:`tournament_logits`.

    Repeats in a stream of draws that are the smaller of two are passed over; what a short stream lacks is drawn
    from the law without the positions taken, so that the result is exact however few positions there are.

    Args:
        lengths: (b,) int64, of each list.
        n: positions a list, at least 1.
        temperature: N·T, in positions, above 0.
        generator: a CPU generator.

    Returns:
        (b, n) int64 from 0; lists of fewer than n entries give all their positions, then pads −1.
    """
    width = n + max(4, n // 4)
    uniform = torch.rand(len(lengths), width, 2, dtype=torch.float64, generator=generator)
    stream = geometric_positions(lengths[:, None, None], temperature, uniform).amin(dim=2)  # (b, width)
    fresh = _first_occurrences(stream)
    order = (~fresh).byte().argsort(dim=1, stable=True)[:, :n]
    chosen = stream.gather(1, order)
    short = torch.nonzero(fresh.sum(dim=1) < n)[:, 0]
    longest = max(n, int(lengths.max())) if len(lengths) else n
    for rows in short.split(max(1, _BLOCK // longest)):
        keys = tournament_logits(lengths[rows], longest, temperature)
        clocks = torch.rand(keys.shape, dtype=torch.float64, generator=generator)
        keys -= (-torch.log1p(-clocks)).log()
        keys.scatter_(1, stream[rows], torch.inf)
        keys.masked_fill_(torch.arange(longest) >= lengths[rows, None], -torch.inf)
        best = keys.topk(n, dim=1)
        chosen[rows] = best.indices.masked_fill(best.values == -torch.inf, -1)
    return chosen


def tournament_logits(lengths: Tensor, width: int, temperature: float) -> Tensor:
    """log(F_k² − F_{k+1}²) up to a constant of each row, for q_k ∝ exp(−k / temperature) cut at the length.

    Returns:
        (b, width) float64; −inf past the length.
    """
    positions = torch.arange(width, dtype=torch.float64)
    left = lengths[:, None] - positions  # positions from k on
    tails = -torch.expm1(-left / temperature)
    tails -= math.exp(-1 / temperature) * torch.expm1(-(left - 1).clamp(min=0) / temperature)
    logits = tails.clamp(min=0).log() - 2 * positions / temperature
    return logits.masked_fill(left <= 0, -torch.inf)


def geometric_positions(lengths: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Positions (from 0) with weight exp(−k / temperature) in lists of some lengths, by inverting the law.

    Args:
        lengths: int64, broadcast against ``uniform``; 0 counts as 1.
        temperature: in positions, above 0.
        uniform: float64 in [0, 1).

    Returns:
        int64, of the shape of ``uniform``.
    """
    positions = -temperature * torch.log1p(uniform * torch.expm1(-lengths.double() / temperature))
    return torch.minimum(positions.long(), lengths - 1).clamp_(min=0)


def _first_occurrences(values: Tensor) -> Tensor:
    """Which entries (b, n) are the first of their value in their row."""
    ascending, order = values.sort(dim=1, stable=True)
    new = torch.ones_like(values, dtype=torch.bool)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    return torch.empty_like(new).scatter_(1, order, new)
