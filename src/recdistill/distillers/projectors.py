"""Networks that take the student's vectors to the teacher's space, and the errors that train them.

Every draw (initial weights, selection noise, dropout) comes from the generator that is passed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recdistill.distillers.base import Context
from recdistill.models.base import Batch
from recdistill.ops.experts import NEGLIGIBLE, Experts, mixture_error

_SMALLEST = 1e-10
_SMALLEST_NORM = 1e-12


class ExpertMixture(nn.Module):
    """M small networks and the one that selects among them by the teacher's vector (DE).

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
        self.first = uniform(num_experts, student_dim, width, fan_in=student_dim, generator=generator)
        self.first_bias = uniform(num_experts, width, fan_in=student_dim, generator=generator)
        self.second = uniform(num_experts, width, teacher_dim, fan_in=width, generator=generator)
        self.second_bias = uniform(num_experts, teacher_dim, fan_in=width, generator=generator)
        self.selection = uniform(teacher_dim, num_experts, fan_in=teacher_dim, generator=generator)
        self.selection_bias = uniform(num_experts, fan_in=teacher_dim, generator=generator)

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """Gumbel(0, 1) of shape ``(rows, M)``."""
        uniform = torch.rand(rows, self.first.shape[0], generator=generator)
        uniform.clamp_(torch.finfo(torch.float32).tiny, 1 - 2**-24)
        return -(-uniform.log()).log().to(self.first.device)

    def logits(self, teacher: Tensor) -> Tensor:
        """V P + c, shape ``(n, M)``: what the selection is the softmax of."""
        with torch.autocast(teacher.device.type, enabled=False):
            return teacher @ self.selection + self.selection_bias

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        row_weight: Tensor,
        noise: Tensor,
        temperature: float,
        squared: bool = True,
    ) -> Tensor:
        """Σ w ‖teacher − reconstruction‖² over rows, or of the norms themselves."""
        z = select(self.logits(teacher), noise, temperature)
        experts = Experts(self.first, self.first_bias, self.second, self.second_bias)
        return mixture_error(student, z, experts, teacher, row_weight, squared)

    def project(self, student: Tensor, selection: Tensor) -> Tensor:
        """Σ_m z_m E_m(x), shape ``(n, dT)``; each expert runs on the rows that select it.

        Args:
            student: x, shape ``(n, dS)``.
            selection: z, shape ``(n, M)``; entries below 1e-8 count as 0.
        """
        owners, rows = torch.nonzero(selection.detach().T > NEGLIGIBLE, as_tuple=True)
        counts = torch.bincount(owners, minlength=len(self.first)).tolist()
        inputs, shares = student[rows].split(counts), selection[rows, owners][:, None].split(counts)
        projected = (selection @ self.second_bias).to(student.dtype)
        weights = self.first.unbind(), self.first_bias.unbind(), self.second.unbind()
        for own, x, share, first, bias, second in zip(
            rows.split(counts), inputs, shares, *weights, strict=True
        ):
            hidden = torch.relu(torch.addmm(bias, x, first)) * share
            projected.index_add_(0, own, (hidden @ second).to(projected.dtype))
        return projected


class MeanExperts(nn.Module):
    """The mean of M networks dropout → Linear → ReLU → dropout → Linear, as two products.

    The experts share the dropout of their input; the mean of their last biases is one bias.

    Args:
        student_dim: dS.
        teacher_dim: dT.
        width: hidden units of each expert, at least 1.
        num_experts: M.
        dropout: share of the numbers that is dropped, in [0, 1).
        generator: of the initial weights and of dropout.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        width: int,
        num_experts: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        units = num_experts * width
        self.first = uniform(student_dim, units, fan_in=student_dim, generator=generator)
        self.first_bias = uniform(units, fan_in=student_dim, generator=generator)
        self.second = uniform(units, teacher_dim, fan_in=width, generator=generator)
        self.second_bias = uniform(teacher_dim, fan_in=width, generator=generator)
        self.num_experts = num_experts
        self.dropout = dropout
        self.generator = generator

    def hidden(self, student: Tensor) -> Tensor:
        """All experts' hidden units side by side, shape ``(n, M · width)``."""
        x = drop(student, self.dropout, self.generator)
        if self.dropout == 0:
            return torch.relu(torch.addmm(self.first_bias, x, self.first))
        grown = 1 / (1 - self.dropout)  # relu(a x) = a relu(x) for a > 0: what is kept grows here
        units = torch.addmm(self.first_bias * grown, x, self.first * grown)
        return _ReluDrop.apply(units, dropped(units, self.dropout, self.generator))  # pyright: ignore[reportReturnType]

    def output(self, hidden: Tensor, bias_weight: Tensor | float = 1.0) -> Tensor:
        """What the hidden units give, shape ``(n, dT)``; sums of rows have their bias that many times."""
        return (hidden @ self.second) / self.num_experts + bias_weight * self.second_bias

    def forward(self, student: Tensor) -> Tensor:
        return self.output(self.hidden(student))


class LinearMap(nn.Module):
    """dropout → W x + b.

    Args:
        student_dim: dS.
        teacher_dim: dT.
        dropout: share of the student's numbers that is dropped, in [0, 1).
        generator: of the initial weights and of dropout.
    """

    def __init__(
        self, student_dim: int, teacher_dim: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.matrix = uniform(student_dim, teacher_dim, fan_in=student_dim, generator=generator)
        self.bias = uniform(teacher_dim, fan_in=student_dim, generator=generator)
        self.dropout = dropout
        self.generator = generator

    def forward(self, student: Tensor) -> Tensor:
        return torch.addmm(self.bias, drop(student, self.dropout, self.generator), self.matrix)


class OrthogonalMap(nn.Module):
    """x Oᵀ with orthonormal columns O (dT ≥ dS: distances are kept) or orthonormal rows (dT < dS); no bias.

    O is the orthonormal factor of a free tall matrix, its signs fixed so that it is unique.

    Args:
        student_dim: dS.
        teacher_dim: dT.
        generator: of the initial matrix, N(0, 1), whose factor is uniform among all such O.
    """

    def __init__(self, student_dim: int, teacher_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        shape = max(student_dim, teacher_dim), min(student_dim, teacher_dim)
        self.matrix = nn.Parameter(torch.randn(shape, generator=generator))
        self.wider = teacher_dim >= student_dim

    def orthogonal(self) -> Tensor:
        """Oᵀ, shape ``(dS, dT)``."""
        with torch.autocast(self.matrix.device.type, enabled=False):
            frame, triangle = torch.linalg.qr(self.matrix)
            frame = frame * triangle.diagonal().detach().sgn()
        return frame.T if self.wider else frame

    def forward(self, student: Tensor) -> Tensor:
        return student @ self.orthogonal()


def uniform(*shape: int, fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """A parameter drawn uniformly within ±1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound, generator=generator))


def embedding_dims(context: Context) -> tuple[int, int]:
    """dS and dT."""
    first = torch.zeros(1, dtype=torch.int64, device=context.device)
    return context.model.state().user_embeddings(first).shape[1], context.knowledge.teacher_dim()


def select(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """z = softmax((log(softmax(logits) + 1e-10) + noise) / τ), shape ``(n, M)``; one expert gives 1."""
    alpha = torch.softmax(logits, dim=1)
    return torch.softmax(((alpha + _SMALLEST).log() + noise) / temperature, dim=1)


def annealed(epoch: int, anneal_epochs: int) -> float:
    """τ(e) = 1e-10^(e / E), at least 1e-10."""
    return max(_SMALLEST ** (epoch / anneal_epochs), _SMALLEST)


class _ReluDrop(torch.autograd.Function):
    """ReLU with some units set to 0, in place."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, without: Tensor) -> Tensor:
        ctx.mark_dirty(units)
        units.relu_().masked_fill_(without, 0)
        ctx.save_for_backward(units)
        return units

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (units,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad_outputs[0], units, 0), None


def drop(values: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Dropout: what is kept grows by 1/(1 − share)."""
    if share == 0:
        return values
    return values.masked_fill(dropped(values, share, generator), 0) / (1 - share)


def dropped(values: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Which of ``values`` to drop, bool, from one seed of ``generator``; the share is in steps of 1/65,536.

    It is at most 65,535 steps: the bound of all of them, 32,768, would not fit into 16 bits.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    words = np.random.SFC64(seed).random_raw((values.numel() + 3) // 4)
    numbers = torch.from_numpy(words.view(np.int16)[: values.numel()]).to(values.device)
    return (numbers < min(round(share * 65536) - 32768, 32767)).view(values.shape)


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows divided by their norms; a row of zeros stays so and gives no gradient."""
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors * torch.where(norm > _SMALLEST_NORM, 1 / norm.clamp(min=_SMALLEST_NORM), 0)


def squared_error(projected: Tensor, targets: Tensor, row_weight: Tensor) -> Tensor:
    """Σ w ‖target − projected‖² over rows."""
    return (row_weight * (projected - targets).square().sum(dim=1)).sum()


def cosine_error(projected: Tensor, targets: Tensor, row_weight: Tensor) -> Tensor:
    """Σ w (1 − cos(projected, target)) over rows; the cosine of a row of zeros is 0."""
    cosine = (unit_rows(projected) * unit_rows(targets)).sum(dim=1)
    return (row_weight * (1 - cosine)).sum()


def mean_weights(rows: Tensor) -> Tensor:
    """Row weights of a plain mean over ``rows``."""
    return torch.full((len(rows),), 1 / len(rows), device=rows.device)


def item_weights(batch: Batch) -> Tensor:
    """Row weights over ``batch.items`` of ½ (mean over unique positives + mean over unique negatives)."""
    weights = torch.zeros(len(batch.items), device=batch.positives.device)
    sides = [side for side in (batch.unique_positives, batch.unique_negatives) if len(side) > 0]
    for side in sides:
        weights[torch.searchsorted(batch.items, side)] += 1 / (2 * len(side))
    return weights
