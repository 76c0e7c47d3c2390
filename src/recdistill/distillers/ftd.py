"""Full Topology Distillation: the cosines between all entities of a batch.

Kang et al., Topology Distillation for Recommender System, KDD 2021, section 4.1.

    L = mean over pairs x, y ∈ X of (cos(p_x, p_y) − cos(P_x, P_y))²

p student, P teacher; X: the batch's unique users and unique items together, pairs in both orders and x = y too. No
projector is needed, since only cosines are compared; users and items must share a space, so that students whose scores
are not products of vectors are refused, and a teacher should be no such model either. The matrix of pairs is never
built: with unit rows the sum is ‖SᵀS‖² + ‖TᵀT‖² − 2 ‖SᵀT‖². The cosine of a row of zeros is 0, where the
authors' code divides by 0.

A published weight λ on a sum over n entities at batch B is ``weight = λ · n² / B`` here: λ = 1e-3 at B = 1,024 (about
2,800 users and items a step) is about 8.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Distiller
from recdistill.distillers.projectors import unit_rows
from recdistill.distillers.relations import relation_error
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class FTD(Distiller):
    """Full Topology Distillation.

    Args:
        weight: of this term in the objective, above 0 (paper: 1e-3 on the sum, about 8 here).
    """

    needs = frozenset({"embeddings"})
    student_needs = frozenset({"embeddings", "dot_product"})

    @validated
    def __init__(self, *, weight: Annotated[float, Field(gt=0)] = 8.0) -> None:
        super().__init__()
        self.weight = weight

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users, items = batch.users, batch.items
        s = torch.cat([student.user_embeddings(users), student.item_embeddings(items)])
        t = torch.cat([teacher.user_embeddings(users), teacher.item_embeddings(items)])
        return relation_error(unit_rows(s), unit_rows(t), [len(s)], positive_only=False)
