"""Layers of a sequence teacher and of a sequence student side by side: maps between them and distances.

Hidden states are compared at the P positions that hold an item, ``(layers, P, dim)``; all distances are means over
them:

    kl:      KL(softmax(t) ‖ softmax(s)) over channels, summed over channels; arguments exchanged with ``reverse``
    mse:     (t − s)², mean over channels
    cosine:  1 − cos(s, t)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill import ops
from recdistill.distillers.base import Context
from recdistill.distillers.projectors import LinearMap
from recdistill.errors import OptionError
from recdistill.knowledge.base import TeacherState
from recdistill.knowledge.sequence import SequenceReads, Shape, shape_of
from recdistill.models.base import State
from recdistill.models.sequence_state import SequenceState
from recdistill.models.sequential import SequenceModel
from recdistill.ops.transport import cooperative_weights, sinkhorn_plan, transport_plan

Metric = Literal["kl", "mse", "cosine"]
Scheme = Literal["left", "right", "left-jump", "right-jump", "random"]


def layer_distances(student: Tensor, teacher: Tensor, metric: Metric = "kl", reverse: bool = False) -> Tensor:
    """Distance of every student layer to every teacher layer, D of shape ``(N, M)``, by one matrix product.

    Rounding may leave an entry just below 0 where two layers agree.

    Args:
        student: shape ``(N, P, dim)``, P positions.
        teacher: shape ``(M, P, dim)``.
        metric: see above.
        reverse: exchange the arguments of ``kl``.
    """
    with torch.autocast(student.device.type, enabled=False):  # differences of sums
        student = ops.full_precision(student)
        return _distances(student, teacher.to(student.dtype), metric, reverse)


def _distances(student: Tensor, teacher: Tensor, metric: Metric, reverse: bool) -> Tensor:
    positions, dim = student.shape[1], student.shape[2]
    if metric == "kl":
        own, other = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
        if reverse:
            weight = own.exp()
            return (
                (weight * own).sum(dim=(1, 2))[:, None] - weight.flatten(1) @ other.flatten(1).T
            ) / positions
        weight = other.exp()
        return ((weight * other).sum(dim=(1, 2)) - own.flatten(1) @ weight.flatten(1).T) / positions
    if metric == "mse":
        squares = student.square().sum(dim=(1, 2))[:, None] + teacher.square().sum(dim=(1, 2))
        return (squares - 2 * student.flatten(1) @ teacher.flatten(1).T) / (positions * dim)
    own, other = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return 1 - own.flatten(1) @ other.flatten(1).T / positions


def pair_distances(student: Tensor, teacher: Tensor, metric: Metric = "kl") -> Tensor:
    """Distance of each student layer to the teacher layer beside it, shape ``(N,)``; both ``(N, P, dim)``."""
    if metric == "kl":
        own, other = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
        return (other.exp() * (other - own)).sum(dim=-1).mean(dim=1)
    if metric == "mse":
        return (student - teacher).square().mean(dim=(1, 2))
    return 1 - F.cosine_similarity(student, teacher, dim=-1).mean(dim=1)


def layer_map(
    scheme: Scheme, student_layers: int, teacher_layers: int, generator: torch.Generator
) -> list[int]:
    """The teacher layer (from 0) of each student layer.

    With more teacher layers T than student layers S, ``left`` takes the first S, ``right`` the last, the jumps
    every ⌊(T−1)/(S−1)⌋-th from the first or up to the last. With fewer, layers repeat: the first (``left``), the last
    (``right``), or each ⌊S/T⌋ times with the remainder at the end (``left-jump``) or the front (``right-jump``). With
    as many, each has its own. ``random`` draws them, in order.
    """
    count, of = student_layers, teacher_layers
    if scheme == "random":
        if of >= count:
            return torch.randperm(of, generator=generator)[:count].sort().values.tolist()
        return torch.randint(of, (count,), generator=generator).sort().values.tolist()
    if of < count:
        repeat = {"left": 1, "right": 1}.get(scheme, count // of)
        spare = count - repeat * of
        front, back = ([0] * spare, []) if scheme in ("left", "right-jump") else ([], [of - 1] * spare)
        return [*front, *(layer for layer in range(of) for _ in range(repeat)), *back]
    if scheme == "left":
        return list(range(count))
    if scheme == "right":
        return list(range(of - count, of))
    if count == 1:
        return [0 if scheme == "left-jump" else of - 1]
    step = (of - 1) // (count - 1)
    first = 0 if scheme == "left-jump" else (of - 1) % (count - 1)
    return [first + layer * step for layer in range(count)]


def both(student: State, teacher: TeacherState) -> tuple[SequenceState, SequenceReads]:
    """What student and teacher make of each item of a step's windows at which both predict the next one."""
    assert isinstance(student, SequenceState)
    reads, answered = teacher.sequence_reads(student.places), student.answered
    return student, reads if answered is None else reads.among(answered)


def stacked(layers: Sequence[Tensor], teacher: SequenceReads) -> Tensor:
    """The student's layers (S, n, dim) at the items for which the teacher has an answer."""
    return torch.stack([layer if teacher.whole else layer.index_select(0, teacher.rows) for layer in layers])


def shapes(context: Context) -> tuple[Shape, Shape]:
    """Sizes of the student's and the teacher's layers.

    Raises:
        OptionError: the layers of one model have different sizes, which one map cannot take to each other.
    """
    assert isinstance(context.model, SequenceModel)
    found = shape_of(context.model), context.knowledge.sequence_shape()
    for whose, shape in zip(("student", "teacher"), found, strict=True):
        if len(set(shape.hidden_states)) != 1:
            raise OptionError(f"the {whose}'s layers have sizes {shape.hidden_states}; expected one size")
    return found


class Projection(nn.Module):
    """One linear map from all of the student's layers to the teacher's space.

    Args:
        student_dim: dS.
        teacher_dim: dT.
        generator: of the initial weights.
    """

    def __init__(self, student_dim: int, teacher_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.map = LinearMap(student_dim, teacher_dim, 0.0, generator)

    def forward(self, layers: Tensor) -> Tensor:
        """(S, n, dS) → (S, n, dT)."""
        return self.map(layers.flatten(0, 1)).unflatten(0, layers.shape[:2])


class LayerTransport(nn.Module):
    """The earth mover's distance between layers, and the weights of the layers, which learn from its plan.

    The weights are no parameters: after each step :func:`~recdistill.ops.transport.cooperative_weights` moves them.
    They are buffers, so that a resumed run has them.

    Args:
        student_layers: N.
        teacher_layers: M.
        solver: ``exact``, on the CPU, or ``sinkhorn``, where the layers are, whose plan has a gradient too.
        temperature: of the weights, above 0.
        smoothing: δ of the weights, at least 0.
    """

    student_weights: Tensor
    teacher_weights: Tensor
    flow: Tensor

    def __init__(
        self,
        student_layers: int,
        teacher_layers: int,
        *,
        solver: Literal["exact", "sinkhorn"] = "exact",
        temperature: float = 10.0,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        self.solver, self.temperature, self.smoothing = solver, temperature, smoothing
        for name, count in (("student_weights", student_layers), ("teacher_weights", teacher_layers)):
            self.register_buffer(name, torch.full((count,), 1 / count))
        self.register_buffer("flow", torch.zeros(student_layers, teacher_layers))
        self._next: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, cost: Tensor, active: int | None = None, teachers_cost: Tensor | None = None) -> Tensor:
        """Σ F D, scalar.

        Args:
            cost: D, shape ``(n, M)``, of the student's first layers.
            active: how many layers these are; all by default. The others keep their weights.
            teachers_cost: D of the teacher's weights, where it is another.
        """
        count = len(self.student_weights) if active is None else active
        w, u = self.student_weights[:count], self.teacher_weights
        share = w.sum()
        if self.solver == "exact":
            plan = transport_plan(cost, w, u)
        else:
            plan = sinkhorn_plan(cost, (w / share).to(cost), u.to(cost))
        moved = plan.detach()
        own, other = cooperative_weights(
            moved,
            cost.detach(),
            w / share,
            u,
            temperature=self.temperature,
            smoothing=self.smoothing,
            column_cost=teachers_cost,
        )
        self._next = torch.cat([own * share, self.student_weights[count:]]), other, moved
        return (plan * cost).sum()

    def after_step(self) -> None:
        """Take the weights that the last plan gives, and keep that plan as ``flow``."""
        if self._next is not None:
            own, other, moved = self._next
            self.student_weights.copy_(own)
            self.teacher_weights.copy_(other)
            self.flow.zero_()[: len(moved)].copy_(moved)
            self._next = None

    def facts(self) -> dict[str, float]:
        """The layers' weights, counted from 1, and the last plan."""
        found: dict[str, float] = {}
        for side, weights in (("student", self.student_weights), ("teacher", self.teacher_weights)):
            found |= {f"{side} {n}": float(w) for n, w in enumerate(weights, start=1)}
        for i, row in enumerate(self.flow, start=1):
            found |= {f"flow {i}>{j}": float(mass) for j, mass in enumerate(row, start=1)}
        return found
