"""Distillation Experts: small networks reconstruct the teacher's vectors from the student's.

Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, section 3.2.

    α_x = softmax(V P_x + c),  z_x = softmax((log(α_x + 1e-10) + g) / τ),  g ~ Gumbel(0, 1)          (eqs. 2, 3)
    L(X) = mean over x ∈ X of ‖P_x − Σ_m z_xm E_m(p_x)‖²,   E_m = Linear → ReLU → Linear               (eq. 4)
    L_DE = L(users) + ½ (L(positives) + L(negatives))

P teacher, p student; users and items have experts of their own. τ falls from 1 to 1e-10 over ``anneal_epochs``.
The paper writes the norm unsquared (``squared=False``); the authors' code squares it, the default here. Positives and
negatives are one call with row weights. A published weight λ on sums at batch B (n unique users, as many items a side)
is λ · n / B here.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.projectors import (
    ExpertMixture,
    annealed,
    embedding_dims,
    item_weights,
    mean_weights,
)
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class DE(Distiller):
    """Distillation Experts.

    Args:
        weight: of this term in the objective, above 0.
        num_experts: M for users and as many for items, at least 1 (paper: 30).
        anneal_epochs: epochs over which the temperature falls from 1 to 1e-10, at least 1 (paper: 1,000, of which
            runs see 250 to 400); selection is one-hot for most rows after a fifth of them.
        squared: square the norms (authors' code: True; paper: False).
    """

    needs = frozenset({"embeddings"})
    student_needs = frozenset({"embeddings"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1e-2,
        num_experts: Annotated[int, Field(ge=1)] = 30,
        anneal_epochs: Annotated[int, Field(ge=1)] = 1000,
        squared: bool = True,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.num_experts = num_experts
        self.anneal_epochs = anneal_epochs
        self.squared = squared

    def setup(self, context: Context) -> None:
        dims = embedding_dims(context)
        self.users = ExpertMixture(*dims, self.num_experts, context.generator)
        self.items = ExpertMixture(*dims, self.num_experts, context.generator)
        self.generator = context.generator
        self.register_buffer("temperature", torch.ones(()))

    def start_epoch(self, epoch: int, context: Context) -> None:
        self.get_buffer("temperature").fill_(annealed(epoch, self.anneal_epochs))

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users, items = batch.users, batch.items
        temperature = float(self.get_buffer("temperature"))
        of_users = self.users(
            student.user_embeddings(users),
            teacher.user_embeddings(users),
            mean_weights(users),
            self.users.noise(len(users), self.generator),
            temperature,
            self.squared,
        )
        of_items = self.items(
            student.item_embeddings(items),
            teacher.item_embeddings(items),
            item_weights(batch),
            self.items.noise(len(items), self.generator),
            temperature,
            self.squared,
        )
        return of_users + of_items
