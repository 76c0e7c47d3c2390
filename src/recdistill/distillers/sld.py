"""Soft Label Distillation: the teacher's scores as soft labels of items that teacher and student both put forward.

Zhu and Zhang, From Input to Output: A Multi-layer Knowledge Distillation Framework for Compressing Recommendation
Models, arXiv 2311.04549v1, 2023: its output layer (version 2 of the paper drops it).

    L = mean over the batch's users u of −Σ_{j ∈ J_u} softmax_j(t_u· / τ) log softmax_j(s_u· / τ)
    J_u = K items of the teacher's top list ∪ K items of the student's top list ∪ L uninteresting items

t, s: scores of teacher and student, softmax over J_u alone; positions of both lists are drawn without replacement with
probability ∝ exp(−k / T); uninteresting items are drawn uniformly from those that are neither observed nor in the
teacher's list. An item that is drawn twice counts once. Everything is drawn anew each epoch, and the student's lists
are those at its start.

The paper's own choice of J could not be checked; its abstract says that the labels consider the predictions of both
models. The authors' repository has a class of this name that computes a ranking loss over the interesting items in
place of soft labels; only its options are quoted here. As in its part that is commented out, there is no factor τ².

A published weight λ on a sum over a batch of B rows with n unique users is ``weight = λ · n / B`` here: λ = 1e-3 at
B = 2,048 (about 1,240 unique users) is 6e-4.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.distillers.rrd import with_lists
from recdistill.knowledge.base import Knowledge, TeacherState
from recdistill.models.base import Batch, State
from recdistill.models.ranking import scores_of


class SLD(Distiller):
    """Soft Label Distillation.

    Args:
        weight: of this term in the objective, above 0.
        guide: whose top list the K items come from: ``teacher``, ``student`` or ``both``.
        num_interesting: K, items of each list, at least 1 (authors' code: 100).
        num_uninteresting: L, random items beside them, at least 1 (authors' code: 200).
        depth: of the lists, at least 1; nothing in the teacher's is drawn as uninteresting (authors' code: 500).
        temperature: τ of the labels and the student's softmax, above 0 (authors' code: 0.1).
        position_temperature: T of the position draw, in list positions, above 0 (authors' code: 10).
        resample_every: epochs between two draws, at which the student's list is read afresh, at least 1 (authors'
            code: 1).
    """

    needs = frozenset({"top_items", "scores"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 6e-4,
        guide: Literal["teacher", "student", "both"] = "both",
        num_interesting: Annotated[int, Field(ge=1)] = 100,
        num_uninteresting: Annotated[int, Field(ge=1)] = 200,
        depth: Annotated[int, Field(ge=1)] = 500,
        temperature: Annotated[float, Field(gt=0)] = 0.1,
        position_temperature: Annotated[float, Field(gt=0)] = 10.0,
        resample_every: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.guide = guide
        self.num_interesting = num_interesting
        self.num_uninteresting = num_uninteresting
        self.depth = depth
        self.temperature = temperature
        self.position_temperature = position_temperature
        self.resample_every = resample_every

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.depth}

    def setup(self, context: Context) -> None:
        users = context.interactions.num_users
        self.num_interesting = context.drawn_items("num_interesting", self.num_interesting)
        self.num_uninteresting = context.drawn_items("num_uninteresting", self.num_uninteresting)
        width = self.num_interesting * (2 if self.guide == "both" else 1) + self.num_uninteresting
        self.register_buffer("drawn", torch.full((users, width), -1, dtype=torch.int32))
        self.register_buffer("labels", torch.zeros(users, width))
        lists = context.teacher_top_items(self.depth)
        self._top = context.with_room(lists, self.num_interesting, self.num_uninteresting)
        self._taken = with_lists(context.interactions, self._top)

    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch % self.resample_every:
            return
        users = torch.arange(context.interactions.num_users)
        drawn = self._taken.sample_unobserved(users, self.num_uninteresting, context.generator, replace=False)
        if self.guide != "student":
            drawn = torch.cat([self._guided(self._top, context.generator), drawn], dim=1)
        if self.guide != "teacher":
            own = self._guided(context.student_top_items(self.depth)[0], context.generator)
            drawn = torch.cat([own.masked_fill(ops.listed(own, drawn), -1), drawn], dim=1)
        self.get_buffer("drawn").copy_(drawn)
        self.get_buffer("labels").copy_(teacher_labels(context.knowledge, drawn, self.temperature))

    def _guided(self, lists: Tensor, generator: torch.Generator) -> Tensor:
        """Items at drawn positions of top lists (U, depth), padded with −1, shape ``(U, K)``, int64."""
        positions = ops.sample_positions(
            (lists >= 0).sum(dim=1), self.num_interesting, self.position_temperature, generator
        )
        return lists.gather(1, positions.clamp(min=0)).long().masked_fill(positions < 0, -1)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("drawn")[batch.users].long()  # (b, n)
        labels = self.get_buffer("labels")[batch.users]
        logits = list_scores(student, batch.users, items) / self.temperature
        return soft_cross_entropy(logits, labels, items >= 0).mean()


def teacher_labels(knowledge: Knowledge, items: Tensor, temperature: float) -> Tensor:
    """softmax(t / τ) over ``items`` (U, n) of all users, 0 at padding (−1); rows sum to 1, or to 0 if empty."""
    scores = scores_of(knowledge, torch.arange(len(items)), items) * knowledge.score_scale
    return torch.softmax(scores / temperature, dim=1).masked_fill_(items < 0, 0.0)


def soft_cross_entropy(logits: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """−Σ_j label_j log softmax_j(logits) of each row, over the entries that are there.

    Args:
        logits: shape ``(b, n)``.
        labels: shape ``(b, n)``, 0 where nothing is there.
        present: shape ``(b, n)``, bool; a row without entries has loss 0.

    Returns:
        Shape ``(b,)``.
    """
    absent = torch.finfo(logits.dtype).min / 4  # finite: no gradient becomes inf - inf
    masked = logits.masked_fill(~present, absent)
    surprise = torch.logsumexp(masked, dim=1, keepdim=True) - masked
    return (labels.to(logits.dtype) * surprise).sum(dim=1)
