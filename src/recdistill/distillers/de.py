"""Distillation Experts: small networks reconstruct the teacher's vectors from the student's.

Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, section 3.2.

    α_x = softmax(V P_x + c),  z_x = softmax((log(α_x + 1e-10) + g) / τ),  g ~ Gumbel(0, 1)          (eqs. 2, 3)
    L(X) = mean over x ∈ X of ‖P_x − Σ_m z_xm E_m(p_x)‖²,   E_m = Linear → ReLU → Linear               (eq. 4)
    L_DE = L(users) + ½ (L(positives) + L(negatives))

P teacher, p student; users and items have experts of their own. τ falls from 1 to 1e-10 over ``anneal_epochs``.
The paper writes the norm unsquared; the authors' code squares it, as here. Positives and negatives are one call
with row weights. A published weight λ on sums at batch B (n unique users, as many items a side) is λ · n / B here.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State
from recdistill.ops.experts import Experts, mixture_error

_SMALLEST = 1e-10


class DE(Distiller):
    """Distillation Experts.

    Args:
        weight: of this term in the objective, above 0.
        num_experts: M for users and as many for items, at least 1 (paper: 30).
        anneal_epochs: epochs over which the temperature falls from 1 to 1e-10, at least 1 (paper: 1,000, of which
            runs see 250 to 400); selection is one-hot for most rows after a fifth of them.
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
    ) -> None:
        super().__init__()
        self.weight = weight
        self.num_experts = num_experts
        self.anneal_epochs = anneal_epochs

    def setup(self, context: Context) -> None:
        student = context.model.state().user_embeddings(
            torch.zeros(1, dtype=torch.int64, device=context.device)
        )
        dims = student.shape[1], context.knowledge.teacher_dim()
        self.users = ExpertMixture(*dims, self.num_experts, context.generator)
        self.items = ExpertMixture(*dims, self.num_experts, context.generator)
        self.generator = context.generator
        self.register_buffer("temperature", torch.ones(()))

    def start_epoch(self, epoch: int, context: Context) -> None:
        self.get_buffer("temperature").fill_(annealed(epoch, self.anneal_epochs))

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users, items = batch.users, batch.items
        user_weight = users.new_full((len(users),), 1 / len(users), dtype=torch.float32)
        temperature = float(self.get_buffer("temperature"))
        of_users = self.users(
            student.user_embeddings(users),
            teacher.user_embeddings(users),
            user_weight,
            self.users.noise(len(users), self.generator),
            temperature,
        )
        of_items = self.items(
            student.item_embeddings(items),
            teacher.item_embeddings(items),
            item_weights(batch),
            self.items.noise(len(items), self.generator),
            temperature,
        )
        return of_users + of_items


class ExpertMixture(nn.Module):
    """M experts and the network that selects among them.

    Args:
        student_dim: dS.
        teacher_dim: dT.
        num_experts: M.
        generator: of the initial weights, uniform within ±1/sqrt(fan in).
    """

    def __init__(
        self, student_dim: int, teacher_dim: int, num_experts: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        width = (student_dim + teacher_dim) // 2 if student_dim != teacher_dim else max(1, student_dim // 2)

        def uniform(*shape: int, fan_in: int) -> nn.Parameter:
            bound = 1 / math.sqrt(fan_in)
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound, generator=generator))

        self.first = uniform(num_experts, student_dim, width, fan_in=student_dim)
        self.first_bias = uniform(num_experts, width, fan_in=student_dim)
        self.second = uniform(num_experts, width, teacher_dim, fan_in=width)
        self.second_bias = uniform(num_experts, teacher_dim, fan_in=width)
        self.selection = uniform(teacher_dim, num_experts, fan_in=teacher_dim)
        self.selection_bias = uniform(num_experts, fan_in=teacher_dim)

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """Gumbel(0, 1) of shape ``(rows, M)``."""
        uniform = torch.rand(rows, self.first.shape[0], generator=generator)
        uniform.clamp_(torch.finfo(torch.float32).tiny, 1 - 2**-24)
        return -(-uniform.log()).log().to(self.first.device)

    def forward(
        self, student: Tensor, teacher: Tensor, row_weight: Tensor, noise: Tensor, temperature: float
    ) -> Tensor:
        """Σ w ‖teacher − reconstruction‖² over rows."""
        with torch.autocast(student.device.type, enabled=False):
            z = select(teacher @ self.selection + self.selection_bias, noise, temperature)
        experts = Experts(self.first, self.first_bias, self.second, self.second_bias)
        return mixture_error(student, z, experts, teacher, row_weight)


def select(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """z = softmax((log(softmax(logits) + 1e-10) + noise) / τ), shape ``(n, M)``; one expert gives 1."""
    alpha = torch.softmax(logits, dim=1)
    return torch.softmax(((alpha + _SMALLEST).log() + noise) / temperature, dim=1)


def annealed(epoch: int, anneal_epochs: int) -> float:
    """τ(e) = 1e-10^(e / E), at least 1e-10."""
    return max(_SMALLEST ** (epoch / anneal_epochs), _SMALLEST)


def item_weights(batch: Batch) -> Tensor:
    """Row weights over ``batch.items`` of ½ (mean over unique positives + mean over unique negatives)."""
    weights = torch.zeros(len(batch.items), device=batch.positives.device)
    sides = [side for side in (batch.unique_positives, batch.unique_negatives) if len(side) > 0]
    for side in sides:
        weights[torch.searchsorted(batch.items, side)] += 1 / (2 * len(side))
    return weights
