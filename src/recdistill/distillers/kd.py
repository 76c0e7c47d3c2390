"""Plain knowledge distillation: cross-entropy over the top items of a guide.

Hinton et al., Distilling the Knowledge in a Neural Network, 2015, over a list in place of all classes, as later
papers have it for their baseline.

    L = mean over the batch's users u of  −Σ_{i∈Q_u} P_i log softmax_i(s_u· / τ),   P = softmax(t_u· / τ)

Q_u: the top k unobserved items of the teacher, or of the student as it was at the last refresh; t, s: scores of teacher
and student, both softmaxes over Q_u alone. No factor τ². Re-implementations keep train items in the lists and count a
user once a row; here lists are of unobserved items and unique users count once.

A published weight λ on a sum over a batch of B rows is ``weight = λ`` where a user counts once a row, and
``λ · n / B`` where the n unique users count once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.distillers.sld import soft_cross_entropy, teacher_labels
from recdistill.distillers.soft_labels import soft_labels
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class KD(Distiller):
    """Plain knowledge distillation.

    With the teacher as guide its ``top_items`` are enough; the student's list asks it for the scores of any item.

    Args:
        weight: of this term in the objective, above 0.
        guide: whose top items are labelled: ``teacher`` or ``student``.
        k: items of the list, at least 1 (re-implementations: 50).
        temperature: τ, above 0 (re-implementations: 1).
        refresh_every: epochs between two lists of the student, at least 1 (re-implementations: 1).
    """

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.1,
        guide: Literal["teacher", "student"] = "teacher",
        k: Annotated[int, Field(ge=1)] = 50,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        refresh_every: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.guide = guide
        self.k = k
        self.temperature = temperature
        self.refresh_every = refresh_every
        self.needs = frozenset({"top_items" if guide == "teacher" else "scores"})

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.k} if self.guide == "teacher" else {}

    def setup(self, context: Context) -> None:
        self.k = context.drawn_items("k", self.k)
        users = context.interactions.num_users
        ids, labels = torch.full((users, self.k), -1), torch.zeros(users, self.k)
        if self.guide == "teacher":
            ids, scores = context.knowledge.top_items(torch.arange(users), self.k)
            labels = soft_labels(scores * context.knowledge.score_scale / self.temperature, ids >= 0)
        of_student = self.guide == "student"
        self.register_buffer("top", ids.int(), persistent=of_student)
        self.register_buffer("labels", labels, persistent=of_student)

    def start_epoch(self, epoch: int, context: Context) -> None:
        if self.guide == "teacher" or epoch % self.refresh_every:
            return
        ids = context.student_top_items(self.k)[0]
        self.get_buffer("top").copy_(ids)
        self.get_buffer("labels").copy_(teacher_labels(context.knowledge, ids, self.temperature))

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("top")[batch.users].long()  # (b, k)
        labels = self.get_buffer("labels")[batch.users]
        logits = list_scores(student, batch.users, items) / self.temperature
        return soft_cross_entropy(logits, labels, items >= 0).mean()
