"""VkD: hints through an orthogonal projector.

Miles, Elezi and Deng, VkD: Improving Knowledge Distillation using Orthogonal Projections, CVPR 2024.

    L = mean over users of ‖n(P_u) − O_U p_u‖² + mean over items of ‖n(Q_i) − O_I q_i‖²,   OᵀO = I

P, Q teacher; p, q student; n normalises the teacher's vectors over the batch. An orthogonal projector keeps the
student's distances and angles, so that it cannot learn in the student's stead. O is the orthonormal factor of a free
matrix, where the paper takes a matrix exponential: the same set of projectors at a cost of dT · dS² instead of dT³.
Where the student is wider than the teacher, O has orthonormal rows. Entities are the batch's unique users and items.

A published weight λ on sums over n users and as many items at batch B is ``weight = λ · n / B`` here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.projectors import OrthogonalMap, embedding_dims, mean_weights, squared_error
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State

_SMALLEST_VARIANCE = 1e-6


class VkD(Distiller):
    """Hints through an orthogonal projector.

    Args:
        weight: of this term in the objective, above 0.
        normalise: the teacher's vectors over the batch: ``none``, ``centre`` (less their mean) or ``standardise``
            (and each dimension of variance 1; the paper's choice for classification).
    """

    needs = frozenset({"embeddings"})
    student_needs = frozenset({"embeddings"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.05,
        normalise: Literal["none", "centre", "standardise"] = "none",
    ) -> None:
        super().__init__()
        self.weight = weight
        self.normalise = normalise

    def setup(self, context: Context) -> None:
        self.users = OrthogonalMap(*embedding_dims(context), context.generator)
        self.items = OrthogonalMap(*embedding_dims(context), context.generator)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users, items = batch.users, batch.items
        of_users = self._error(self.users(student.user_embeddings(users)), teacher.user_embeddings(users))
        of_items = self._error(self.items(student.item_embeddings(items)), teacher.item_embeddings(items))
        return of_users + of_items

    def _error(self, projected: Tensor, targets: Tensor) -> Tensor:
        return squared_error(projected, normalised(targets, self.normalise), mean_weights(targets))


def normalised(vectors: Tensor, how: str) -> Tensor:
    """Vectors (n, d) less their mean (``centre``), and divided by each dimension's deviation (``standardise``)."""
    if how == "none":
        return vectors
    centred = vectors - vectors.mean(dim=0)
    if how == "centre":
        return centred
    return centred * torch.rsqrt(centred.square().mean(dim=0) + _SMALLEST_VARIANCE)
