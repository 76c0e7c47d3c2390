"""Consistent-preference projectors: a feature loss whose projectors keep the student's order of items.

Zhu and Zhang, From Input to Output: A Multi-layer Knowledge Distillation Framework for Compressing Recommendation
Models, arXiv 2311.04549v1, 2023, the intermediate layer; Preference-Consistent Knowledge Distillation for Recommender
System, TKDE 2025.

    L = L_feature + α R_pair + β R_list
    a_ui = p_u · q_i,   b_ui = f_U(p_u) · f_I(q_i)
    R_pair = mean over (u, i, j) of softplus(−(b_ui − b_uj) (a_ui − a_uj))           ("logistic", TKDE)
                              or of max(0, −(b_ui − b_uj) (a_ui − a_uj))              ("hinge", first version)
    R_list = mean over users of CE(softmax(a_u / τ), softmax(b_u / τ))

L_feature: the loss of Distillation Experts, or the squared error or 1 − cosine of a mean of networks, on users and,
half each, positives and negatives. a is the student's order only where its scores are products of its vectors; other
students are refused. In R the student's p and q are held fixed, so that R trains the projectors alone.
R_list compares Q items of each user, drawn by position from the top list of the teacher or of the student, or
uniformly; R_pair compares the same items two by two, or each training row's positive with its negatives.

With experts, R reads either the expert of the largest selection weight or the same noisy mixture as L_feature, never
other noise. Each user of a batch counts once and each item is projected once, where the code has a row for each
interaction. Train items are never among the Q. The code sums: λ = 0.05 and α = 0.1 at B = 2,048 on CiteULike (1,240
unique users a step) are about 0.03 and 0.15 here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recdistill import ops
from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.projectors import (
    ExpertMixture,
    MeanExperts,
    annealed,
    cosine_error,
    embedding_dims,
    item_weights,
    mean_weights,
    select,
    squared_error,
)
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State

Pair = tuple[Tensor, Tensor]
"""Vectors of users and of items."""


class CPD(Distiller):
    """Consistent-preference distillation of vectors.

    Args:
        weight: of this term in the objective, above 0 (paper's code: 0.05 on sums, about 0.03 here).
        feature: ``de``, experts selected by the teacher's vector, ``fitnet``, the mean of all by its squared error, or
            ``cosine``, by 1 − cosine (TKDE's code: de; first version's: cosine).
        num_experts: M, projectors a side, at least 1 (paper's code: 30 with ``de``, 5 with the mean).
        anneal_epochs: epochs over which the selection's temperature falls from 1 to 1e-10, at least 1; ``de`` only
            (paper's code: 1,000).
        selection: what R reads of the experts, ``de`` only: ``argmax``, one each, or ``shared``, the feature loss's
            own mixture, M times the work while that is soft.
        pair_weight: α, of the pair-wise regulariser, at least 0 (paper's code: 0.1 on sums, about 0.15 here).
        pair: ``logistic`` or ``hinge``.
        pairs: of the drawn items (``drawn``), or each row's positive and negatives (``batch``).
        list_weight: β, of the list-wise regulariser, at least 0 (paper's code: 0.1 on sums, about 0.15 here).
        list_temperature: τ, of the list-wise regulariser, above 0 (paper's code: 0.1).
        guide: whose top list the Q items are drawn from, ``teacher`` or ``student``, or ``uniform``, all unobserved.
        num_items: Q, items drawn for each user, at least 2 (paper's code: 5).
        depth: of the list, at least 2 (paper's code: 100).
        temperature: of the draw, in list positions, above 0 (paper's code: 10).
        resample_every: epochs between two draws, at which the student's list is read afresh, at least 1.
    """

    student_needs = frozenset({"embeddings", "dot_product"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.03,
        feature: Literal["de", "fitnet", "cosine"] = "de",
        num_experts: Annotated[int, Field(ge=1)] = 30,
        anneal_epochs: Annotated[int, Field(ge=1)] = 1000,
        selection: Literal["argmax", "shared"] = "argmax",
        pair_weight: Annotated[float, Field(ge=0)] = 0.15,
        pair: Literal["logistic", "hinge"] = "logistic",
        pairs: Literal["drawn", "batch"] = "drawn",
        list_weight: Annotated[float, Field(ge=0)] = 0.15,
        list_temperature: Annotated[float, Field(gt=0)] = 0.1,
        guide: Literal["teacher", "student", "uniform"] = "teacher",
        num_items: Annotated[int, Field(ge=2)] = 5,
        depth: Annotated[int, Field(ge=2)] = 100,
        temperature: Annotated[float, Field(gt=0)] = 10.0,
        resample_every: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self._draws = list_weight > 0 or (pairs == "drawn" and pair_weight > 0)
        reads_lists = guide == "teacher" and self._draws
        self.needs = frozenset({"embeddings", "top_items"} if reads_lists else {"embeddings"})
        self.weight = weight
        self.feature = feature
        self.num_experts = num_experts
        self.anneal_epochs = anneal_epochs
        self.selection = selection
        self.pair_weight = pair_weight
        self.pair = pair
        self.pairs = pairs
        self.list_weight = list_weight
        self.list_temperature = list_temperature
        self.guide = guide
        self.num_items = num_items
        self.depth = depth
        self.temperature = temperature
        self.resample_every = resample_every

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.depth} if "top_items" in self.needs else {}

    def setup(self, context: Context) -> None:
        self.generator = context.generator
        self.num_items = context.drawn_items("num_items", self.num_items)
        student_dim, teacher_dim = embedding_dims(context)
        if self.feature == "de":
            experts = student_dim, teacher_dim, self.num_experts, self.generator
            self.users, self.items = ExpertMixture(*experts), ExpertMixture(*experts)
        else:
            width = max(1, (student_dim + teacher_dim) // 2)
            networks = student_dim, teacher_dim, width, self.num_experts, 0.0, self.generator
            self.users, self.items = MeanExperts(*networks), MeanExperts(*networks)
        users = context.interactions.num_users
        self.register_buffer("temperature_now", torch.ones(()))
        self.register_buffer("drawn", torch.full((users, self.num_items), -1, dtype=torch.int32))

    def start_epoch(self, epoch: int, context: Context) -> None:
        self.get_buffer("temperature_now").fill_(annealed(epoch, self.anneal_epochs))
        if self._draws and epoch % self.resample_every == 0:
            drawn = self.get_buffer("drawn")
            drawn.copy_(self._draw(context).to(drawn.device))

    def _draw(self, context: Context) -> Tensor:
        """Q items of each user ``(U, Q)``, padded with −1."""
        everyone = torch.arange(context.interactions.num_users)
        if self.guide == "uniform":
            return context.interactions.sample_unobserved(
                everyone, self.num_items, self.generator, replace=False
            )
        if self.guide == "teacher":
            ids = context.teacher_top_items(self.depth)
        else:
            ids = context.student_top_items(self.depth)[0]
        lengths = (ids >= 0).sum(dim=1)
        places = ops.sample_positions(lengths, self.num_items, self.temperature, self.generator)
        return ids.gather(1, places.clamp(min=0)).masked_fill(places < 0, -1)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        drawn = self.get_buffer("drawn")[batch.users].long()
        found = [drawn[drawn >= 0]]
        if self.pairs == "batch" and self.pair_weight > 0:
            found.append(batch.items)
        compared = ops.unique_inverse(torch.cat(found), batch.num_items)[0]  # the items that R projects
        p, q = student.user_embeddings(batch.users), student.item_embeddings(batch.items)
        fixed = p.detach(), student.item_embeddings(compared).detach()
        parts = self._with_experts if self.feature == "de" else self._with_networks
        feature, projected = parts(p, q, fixed, compared, teacher, batch)
        if len(compared) == 0:
            return feature
        return feature + self._regulariser(fixed, projected, drawn, compared, batch)

    def _with_experts(
        self, p: Tensor, q: Tensor, fixed: Pair, compared: Tensor, teacher: TeacherState, batch: Batch
    ) -> tuple[Tensor, Pair]:
        """L_feature by selected experts, and the fixed vectors as R sees them projected."""
        users, items = self.users, self.items
        assert isinstance(users, ExpertMixture)
        assert isinstance(items, ExpertMixture)
        of_users, of_items = teacher.user_embeddings(batch.users), teacher.item_embeddings(batch.items)
        known = ops.unique_inverse(torch.cat([batch.items, compared]), batch.num_items)[0]
        user_noise = users.noise(len(p), self.generator)
        item_noise = items.noise(len(known), self.generator)  # one for an item, in L_feature and in R
        now = float(self.get_buffer("temperature_now"))
        own_noise = item_noise[torch.searchsorted(known, batch.items)]
        feature = users(p, of_users, mean_weights(p), user_noise, now)
        feature = feature + items(q, of_items, item_weights(batch), own_noise, now)
        noise = user_noise, item_noise[torch.searchsorted(known, compared)]
        return feature, (
            users.project(fixed[0], self._selected(users.logits(of_users), noise[0], now)),
            items.project(
                fixed[1], self._selected(items.logits(teacher.item_embeddings(compared)), noise[1], now)
            ),
        )

    def _selected(self, logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
        if self.selection == "argmax":
            return F.one_hot(logits.argmax(dim=1), self.num_experts).to(logits.dtype)
        return select(logits, noise, temperature)

    def _with_networks(
        self, p: Tensor, q: Tensor, fixed: Pair, compared: Tensor, teacher: TeacherState, batch: Batch
    ) -> tuple[Tensor, Pair]:
        """As :meth:`_with_experts`, by the mean of networks."""
        of_users, of_items = teacher.user_embeddings(batch.users), teacher.item_embeddings(batch.items)
        error = cosine_error if self.feature == "cosine" else squared_error
        feature = error(self.users(p), of_users, mean_weights(p))
        feature = feature + error(self.items(q), of_items, item_weights(batch))
        return feature, (self.users(fixed[0]), self.items(fixed[1]))

    def _regulariser(
        self, fixed: Pair, projected: Pair, drawn: Tensor, compared: Tensor, batch: Batch
    ) -> Tensor:
        """α R_pair + β R_list; vectors are those of the batch's users and of the items ``compared``."""

        def scores(rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
            places = torch.where(items < 0, -1, torch.searchsorted(compared, items))
            return ops.scores_at(*fixed, rows, places), ops.scores_at(*projected, rows, places)

        total = fixed[0].new_zeros(())
        before, after = scores(torch.arange(len(drawn), device=drawn.device), drawn)
        if self.list_weight > 0:
            lists = list_consistency(before, after, drawn >= 0, self.list_temperature)
            total = total + self.list_weight * lists
        if self.pair_weight == 0:
            return total
        if self.pairs == "drawn":
            i, j = torch.triu_indices(self.num_items, self.num_items, 1, device=drawn.device)
            gaps = before[:, i] - before[:, j], after[:, i] - after[:, j]
            present = (drawn[:, i] >= 0) & (drawn[:, j] >= 0)
        else:
            negatives = batch.positives[:, None][:, :0] if batch.negatives is None else batch.negatives
            before, after = scores(batch.row, torch.cat([batch.positives[:, None], negatives], dim=1))
            gaps = before[:, :1] - before[:, 1:], after[:, :1] - after[:, 1:]
            present = torch.ones_like(negatives, dtype=torch.bool)
        return total + self.pair_weight * pair_consistency(*gaps, present, self.pair)


def pair_consistency(before: Tensor, after: Tensor, present: Tensor, form: str) -> Tensor:
    """Mean over pairs of how far they change places.

    Args:
        before: a_ui − a_uj, shape ``(n, m)``.
        after: b_ui − b_uj, shape ``(n, m)``.
        present: which pairs there are, shape ``(n, m)``, bool.
        form: ``logistic`` or ``hinge``.
    """
    swapped = -after * before
    loss = F.softplus(swapped) if form == "logistic" else torch.relu(swapped)
    return loss.masked_fill(~present, 0).sum() / present.sum().clamp(min=1)


def list_consistency(before: Tensor, after: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Mean over users of CE(softmax(before / τ), softmax(after / τ)); all shapes ``(b, Q)``, a user may have none."""
    lowest = torch.finfo(before.dtype).min
    target = torch.softmax((before / temperature).masked_fill(~present, lowest), dim=1)
    found = torch.log_softmax((after / temperature).masked_fill(~present, lowest), dim=1)
    return -(target * found).masked_fill(~present, 0).sum(dim=1).mean()
