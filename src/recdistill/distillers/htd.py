"""Hierarchical Topology Distillation: cosines within groups, and between groups and entities.

Kang et al., Topology Distillation for Recommender System, KDD 2021, section 4.2.

    L = γ L_TD + (1 − γ) L_GA,   L_TD = L_entity + L_group
    L_GA: the loss of Distillation Experts, mean over users + mean over items
    z(x) = argmax_k (V P_x + c)_k   the group of x, by the selection network that L_GA trains; no gradient
    L_entity = mean over pairs x, y of one group of (cos(p_x, p_y) − cos(P_x, P_y))²
    L_group = mean over groups g and entities x of (cos(c_g, p_x) − cos(C_g, P_x))²            ("second")
              mean over pairs of groups of (cos(c_g, c_h) − cos(C_g, C_h))²                    ("first")

p student, P teacher; entities: the batch's unique users and items, which never share a group; c_g, C_g: means of the
members of g, held fixed as in the authors' code, so that "first" has a value but no gradient. That code drops pairs
of teacher cosine 0 or less from L_entity (``positive_only``), which the paper keeps. All pairs are summed by groups
without a matrix of pairs; filtered ones in blocks of one group. L_group compares groups of users with items too, which
says little of students whose scores are no products of vectors (NeuMF, CML); what lies within a side remains, so that
they may learn by it, as in the paper.

The authors sum: λ = 1e-3, γ = 0.5 over about 150,000 pairs each and 1,400 entities a side at B = 1,024. As means
these are ``weight`` = 0.08 and ``gamma`` = 0.99.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.projectors import (
    ExpertMixture,
    annealed,
    embedding_dims,
    mean_weights,
    unit_rows,
)
from recdistill.distillers.relations import relation_error
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State

_BLOCK = 8192
"""Entities whose groups are looked up at once."""


class HTD(Distiller):
    """Hierarchical Topology Distillation.

    Args:
        weight: of this term in the objective, above 0 (paper: 1e-3 on sums, about 0.08 here).
        gamma: share of the topology loss, the rest is the group assignment's, in [0, 1] (paper: 0.5 on sums, about
            0.99 here).
        num_groups: K for users and as many for items, at least 1 (paper: 30).
        level: ``second`` compares groups with entities, ``first`` groups with groups (paper: second).
        positive_only: leave out pairs of teacher cosine 0 or less within groups, as the authors' code does.
        anneal_epochs: epochs over which the temperature of the assignment falls from 1 to 1e-10, at least 1
            (paper: 100).
    """

    needs = frozenset({"embeddings"})
    student_needs = frozenset({"embeddings"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.08,
        gamma: Annotated[float, Field(ge=0, le=1)] = 0.99,
        num_groups: Annotated[int, Field(ge=1)] = 30,
        level: Literal["first", "second"] = "second",
        positive_only: bool = True,
        anneal_epochs: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.gamma = gamma
        self.num_groups = num_groups
        self.level = level
        self.positive_only = positive_only
        self.anneal_epochs = anneal_epochs

    def setup(self, context: Context) -> None:
        dims = embedding_dims(context)
        self.users = ExpertMixture(*dims, self.num_groups, context.generator)
        self.items = ExpertMixture(*dims, self.num_groups, context.generator)
        self.generator = context.generator
        self.register_buffer("temperature", torch.ones(()))

    def start_epoch(self, epoch: int, context: Context) -> None:
        self.get_buffer("temperature").fill_(annealed(epoch, self.anneal_epochs))
        if epoch == min(self.anneal_epochs, context.num_epochs - 1):
            self._note_empty(context)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        of_users = student.user_embeddings(batch.users), teacher.user_embeddings(batch.users)
        of_items = student.item_embeddings(batch.items), teacher.item_embeddings(batch.items)
        assignment = self._assignment(self.users, *of_users) + self._assignment(self.items, *of_items)
        with torch.no_grad():
            of_user = self.users.logits(of_users[1]).argmax(dim=1)
            of_item = self.items.logits(of_items[1]).argmax(dim=1) + self.num_groups
        topology = topology_loss(
            torch.cat([of_users[0], of_items[0]]),
            torch.cat([of_users[1], of_items[1]]),
            torch.cat([of_user, of_item]),
            self.level,
            self.positive_only,
        )
        return self.gamma * topology + (1 - self.gamma) * assignment

    @torch.no_grad()
    def _note_empty(self, context: Context) -> None:
        """Say once, when the assignment is all but fixed, how many groups nobody is in."""
        data, device = context.interactions, self.get_buffer("temperature").device
        for of, experts, vectors, count in (
            ("users", self.users, context.knowledge.user_embeddings, data.num_users),
            ("items", self.items, context.knowledge.item_embeddings, data.num_items),
        ):
            taken = torch.zeros(self.num_groups, dtype=torch.bool, device=device)
            for rows in torch.arange(count, device=device).split(_BLOCK):
                taken[experts.logits(vectors(rows)).argmax(dim=1)] = True
            empty = int((~taken).sum())
            if empty:
                context.note(f"{context.name}: {empty} of {self.num_groups} groups of {of} are empty")

    def _assignment(self, experts: ExpertMixture, student: Tensor, teacher: Tensor) -> Tensor:
        noise = experts.noise(len(student), self.generator)
        return experts(student, teacher, mean_weights(student), noise, float(self.get_buffer("temperature")))


def topology_loss(
    student: Tensor, teacher: Tensor, groups: Tensor, level: str, positive_only: bool
) -> Tensor:
    """L_entity + L_group of n entities.

    Args:
        student: shape ``(n, dS)``.
        teacher: shape ``(n, dT)``.
        groups: the group of each entity, shape ``(n,)``, int64.
        level: ``first`` or ``second``.
        positive_only: leave out pairs of teacher cosine 0 or less within groups.
    """
    _, place, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    order = torch.argsort(place, stable=True)
    s, t = unit_rows(student), unit_rows(teacher)
    by_group = s.index_select(0, order), t.index_select(0, order)
    entity = relation_error(*by_group, sizes.tolist(), positive_only)
    group = group_error(s, prototypes(student, place, sizes), t, prototypes(teacher, place, sizes), level)
    return entity + group


@torch.no_grad()
def prototypes(vectors: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """Unit vectors in the direction of each group's mean, shape ``(G, d)``, held fixed."""
    sums = vectors.new_zeros(len(sizes), vectors.shape[1]).index_add_(0, place, vectors)
    return unit_rows(sums / sizes[:, None])


def group_error(
    student: Tensor, student_groups: Tensor, teacher: Tensor, teacher_groups: Tensor, level: str
) -> Tensor:
    """Mean squared difference of cosines of groups (G, d) to groups or to all entities (n, d); all are unit rows."""
    if level == "first":
        student, teacher = student_groups, teacher_groups
    with torch.autocast(student.device.type, enabled=False):
        return (student_groups @ student.T - teacher_groups @ teacher.T).square().mean()
