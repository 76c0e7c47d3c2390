"""FitNet-style hints: a projector takes the student's vectors to the teacher's.

Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, as research code for recommenders applies it to vectors.

    L = mean over users of ‖P_u − f_U(p_u)‖² + mean over items of ‖Q_i − f_I(q_i)‖²

P, Q teacher; p, q student; f a linear map, or the mean of M networks dropout → Linear → ReLU → dropout → Linear. The
entities are the batch's unique users and items, or as many of each as the batch has rows, drawn uniformly (here with
replacement). A published weight λ on sums over n users and as many items at batch B is ``weight = λ · n / B`` here;
for uniform draws n = B.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.projectors import (
    LinearMap,
    MeanExperts,
    embedding_dims,
    mean_weights,
    squared_error,
    unit_rows,
)
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class FitNet(Distiller):
    """Hints by regression of the teacher's vectors.

    Args:
        weight: of this term in the objective, above 0 (research code on CiteULike: 0.05).
        entities: ``batch``, the batch's unique users and items, or ``uniform``, drawn from all (research code).
        num_experts: M, networks whose mean is the projector, at least 0; 0 is one linear map (research code: 1).
        hidden_ratio: hidden units of a network per teacher dimension, above 0 (research code: 5).
        dropout: of the projector's inputs and hidden units, in [0, 1) (research code: 0.2).
        normalise: compare vectors of length 1.
    """

    needs = frozenset({"embeddings"})
    student_needs = frozenset({"embeddings"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.05,
        entities: Literal["batch", "uniform"] = "batch",
        num_experts: Annotated[int, Field(ge=0)] = 0,
        hidden_ratio: Annotated[float, Field(gt=0)] = 5.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.entities = entities
        self.num_experts = num_experts
        self.hidden_ratio = hidden_ratio
        self.dropout = dropout
        self.normalise = normalise

    def setup(self, context: Context) -> None:
        self.generator = context.generator
        self.users = self._projector(*embedding_dims(context))
        self.items = self._projector(*embedding_dims(context))

    def _projector(self, student_dim: int, teacher_dim: int) -> LinearMap | MeanExperts:
        if self.num_experts == 0:
            return LinearMap(student_dim, teacher_dim, self.dropout, self.generator)
        width = max(1, int(self.hidden_ratio * teacher_dim))
        return MeanExperts(student_dim, teacher_dim, width, self.num_experts, self.dropout, self.generator)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users, items = batch.users, batch.items
        if self.entities == "uniform":
            users = self._drawn(student.num_users, batch)
            items = self._drawn(student.num_items, batch)
        of_users = self._error(self.users(student.user_embeddings(users)), teacher.user_embeddings(users))
        of_items = self._error(self.items(student.item_embeddings(items)), teacher.item_embeddings(items))
        return of_users + of_items

    def _drawn(self, count: int, batch: Batch) -> Tensor:
        """As many of ``count`` entities as the batch has rows."""
        return torch.randint(count, (len(batch),), generator=self.generator).to(batch.users.device)

    def _error(self, projected: Tensor, targets: Tensor) -> Tensor:
        if self.normalise:
            projected, targets = unit_rows(projected), unit_rows(targets)
        return squared_error(projected, targets, mean_weights(targets))
